import numpy as np
import pytest
import torch
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from dnl_d2.data import evaluation_label_reader, read_label, register_sem_seg_folder
from dnl_d2.data.labels import checked_label, invalid_values, remap_ignored
from dnl_d2.errors import UsageError
from tests.pictures import grey_png, truncate

IDS = np.array([[0, 1, 2], [7, 11, 255]], np.uint8)


def test_grey_label_is_read_as_ids(save):
    np.testing.assert_array_equal(read_label(save("a.png", IDS)), IDS)


def test_palette_label_is_read_as_indices(save):
    picture = Image.fromarray(IDS)
    picture.putpalette(list(range(255, -1, -1)) * 3)
    path = save("a.png", picture)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(read_label(path), IDS)


def test_two_valued_label_is_read_as_zero_and_one(save):
    ids = np.array([[0, 1], [1, 0]], bool)
    path = save("a.png", Image.fromarray(ids))
    assert Image.open(path).mode == "1"
    np.testing.assert_array_equal(read_label(path), ids.astype(int))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_png_of_few_bits_gives_the_stored_values(tmp_path, bits):
    ids = (np.arange(16) % 2**bits).astype(np.uint8).reshape(2, 8)
    path = tmp_path / "few.png"
    path.write_bytes(grey_png(ids, bits))
    np.testing.assert_array_equal(read_label(str(path)), ids)


def test_greys_that_only_look_spread_stay(save):
    ids = np.array([[0, 85, 170, 255]], np.uint8)
    np.testing.assert_array_equal(read_label(save("a.png", ids)), ids)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_label_keeps_large_ids(save, dtype):
    ids = np.array([[0, 846], [255, 65535]], dtype)
    read = read_label(save("a.tiff", ids))
    np.testing.assert_array_equal(read, ids)
    assert read.dtype == np.int32


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_label_is_refused(save, channels):
    path = save("colour.png", np.zeros((2, 2, channels), np.uint8))
    with pytest.raises(UsageError, match=r"label .*colour\.png holds colours"):
        read_label(path)


def test_missing_and_truncated_labels_are_named(save, rng, tmp_path):
    with pytest.raises(UsageError, match=r"label .*gone\.png does not exist"):
        read_label(str(tmp_path / "gone.png"))
    path = save("cut.png", rng.integers(0, 9, (80, 80), dtype=np.uint8))
    truncate(path)
    with pytest.raises(UsageError, match=r"label .*cut\.png cannot be read"):
        read_label(path)


@pytest.mark.parametrize(
    ("num_classes", "ignore_label", "expected"),
    [
        (12, 255, []),
        (11, 11, []),
        (11, 255, [11]),
        (5, 11, [7]),
        (2, 0, [2, 7, 11]),
        (256, 300, []),
    ],
)
def test_invalid_values(num_classes, ignore_label, expected):
    assert invalid_values(IDS, num_classes=num_classes, ignore_label=ignore_label) == expected


def test_with_more_than_255_classes_255_is_a_class():
    label = np.array([[255, 300, -1, 65535]], np.int32)
    wrong = invalid_values(label, num_classes=300, ignore_label=65535)
    assert wrong == [-1, 300]
    mapped = remap_ignored(label, num_classes=400, ignore_label=65535, ignore_value=-7)
    np.testing.assert_array_equal(mapped, [[255, 300, -1, -7]])


def test_remap_replaces_the_label_and_255_and_leaves_the_input():
    before = IDS.copy()
    mapped = remap_ignored(IDS, num_classes=11, ignore_label=11, ignore_value=254)
    np.testing.assert_array_equal(mapped, [[0, 1, 2], [7, 254, 254]])
    assert mapped.dtype == np.uint8
    np.testing.assert_array_equal(IDS, before)


def test_checked_label_names_file_and_value(save):
    path = save("wrong.png", IDS)
    with pytest.raises(UsageError, match=r"wrong\.png holds the value 7.*classes are 0 to 4"):
        checked_label(path, num_classes=5, ignore_label=11)


def test_evaluation_reader_serves_the_evaluator(save):
    load = evaluation_label_reader(num_classes=11, ignore_label=11)
    path = save("a.png", IDS)
    read = load(path, dtype=int)
    np.testing.assert_array_equal(read, [[0, 1, 2], [7, 11, 11]])
    assert read.dtype == np.dtype(int)
    read[0, 0] = 3  # the evaluator writes into it
    with pytest.raises(UsageError, match="value 7"):
        evaluation_label_reader(num_classes=5, ignore_label=11)(path)


def test_detectron2s_evaluator_accepts_the_reader(save):
    """A perfect prediction scores 100, with the dataset's ignored value and 255 left out."""
    name = "test_labels_data"
    image = save("images/a.png", np.zeros((2, 3, 3), np.uint8))
    ids = np.array([[0, 1, 2], [2, 3, 255]], np.uint8)
    save("labels/a.png", ids)
    folders = image.rsplit("/", 1)[0], image.replace("images/a.png", "labels")
    register_sem_seg_folder(name, *folders, classes=["x", "y", "z"], ignore_label=3)
    reader = evaluation_label_reader(num_classes=3, ignore_label=3)
    evaluator = SemSegEvaluator(name, distributed=False, sem_seg_loading_fn=reader)
    evaluator.reset()
    scores = torch.nn.functional.one_hot(torch.as_tensor(ids % 3).long(), 3).permute(2, 0, 1)
    evaluator.process([{"file_name": image}], [{"sem_seg": scores.float()}])
    figures = evaluator.evaluate()["sem_seg"]
    assert figures["mIoU"] == figures["pACC"] == 100
