"""Ground truth at the cells of a feature map."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog

from dnl_d2.errors import UsageError
from dnl_d2_attention.truth import NONE, Frame, at_cells, boundaries, of_labels

META = "attention_truth_test"


@pytest.fixture
def metadata():
    yield MetadataCatalog.get(META).set(stuff_classes=["a", "b"], ignore_label=7)
    MetadataCatalog.remove(META)


def test_label_maps_without_what_is_ignored(metadata, save):
    label = np.array([[0, 1, 7], [255, 1, 0]], np.uint8)
    regions = of_labels({"sem_seg_file_name": save("label.png", label)}, metadata)
    assert regions.tolist() == [[0, 1, NONE], [NONE, 1, 0]]


def test_objects_lie_over_larger_ones_and_crowds_are_none(metadata):
    def box(x0, y0, x1, y1, **more):
        corners = [x0, y0, x1, y0, x1, y1, x0, y1]
        return {"segmentation": [corners], "bbox": [x0, y0, x1, y1], "bbox_mode": 0, **more}

    annotations = [box(1, 1, 2, 2), box(0, 0, 4, 3), box(3, 0, 6, 4, iscrowd=1)]
    for annotation in annotations:
        annotation["category_id"] = 0
    record = {"height": 4, "width": 6, "annotations": annotations}
    regions = of_labels(record, metadata)
    assert regions[1, 1] == 0 and regions[0, 0] == 1 and regions[3, 5] == NONE
    assert (regions == 0).sum() == 1 and (regions == 1).sum() == 11


def test_no_ground_truth(metadata):
    assert of_labels({"file_name": "x.png"}, metadata) is None
    assert of_labels({"file_name": "x.png", "annotations": []}, metadata) is None
    with pytest.raises(UsageError, match="does not exist"):
        of_labels({"sem_seg_file_name": "nowhere.png"}, metadata)


def test_cells_have_the_pixel_at_their_centre():
    regions = np.arange(8 * 8).reshape(8, 8)
    frame = Frame(picture=(8, 8), resized=(8, 8), padded=(8, 8))
    cells = at_cells(regions, frame, (2, 2)).view(2, 2)
    assert cells.tolist() == [[2 * 8 + 2, 2 * 8 + 6], [6 * 8 + 2, 6 * 8 + 6]]


def test_resizing_and_padding_are_undone():
    regions = np.arange(6).reshape(2, 3)
    # Twice as large for the model, then padded to 8x8; a map of 4x4 cells of 2 pixels.
    frame = Frame(picture=(2, 3), resized=(4, 6), padded=(8, 8))
    cells = at_cells(regions, frame, (4, 4)).view(4, 4)
    assert cells.tolist() == [[0, 1, 2, NONE], [3, 4, 5, NONE], [NONE] * 4, [NONE] * 4]


@pytest.mark.parametrize("shape", [(3, 4), (3, 3), (1, 5), (5, 1)])
def test_boundaries_are_between_regions_that_are_known(shape):
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(-1, 2, shape, generator=generator)
    expected = torch.zeros(shape, dtype=torch.bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            for r, c in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if 0 <= r < shape[0] and 0 <= c < shape[1]:
                    pair = {int(cells[row, column]), int(cells[r, c])}
                    expected[row, column] |= len(pair) == 2 and NONE not in pair
    assert torch.equal(boundaries(cells.flatten(), shape), expected.flatten())
