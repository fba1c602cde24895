"""Boxes that are pairs of corners."""

import copy

import pytest

from dnl_d2.data.datasets.coco_json import read_coco_json
from dnl_d2.errors import UsageError
from dnl_d2.validation.coco_boxes import judge_boxes


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def form(*boxes, polygons=True):
    """One image of 100 x 80 (width x height) with these boxes [x, y, side]."""
    return {
        "images": [{"id": 1, "file_name": "1.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {
                "id": n, "image_id": 1, "category_id": 1, "bbox": [x, y, side, side],
                **({"segmentation": [square(x, y, side)]} if polygons else {}),
            }
            for n, (x, y, side) in enumerate(boxes, start=1)
        ],
    }  # fmt: skip


BOXES = [(10, 12, 20), (40, 30, 30), (60, 10, 40), (2, 50, 25)]


def as_corners(content):
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
    return content


@pytest.fixture
def judge(write_json):
    return lambda content: judge_boxes(read_coco_json(write_json(content))[0])


@pytest.mark.parametrize("polygons", [True, False])
def test_sound_boxes_are_not_doubted(judge, polygons):
    assert judge(form(*BOXES, polygons=polygons)) == []
    assert judge(form((-1, -2, 20), (85, 60, 17), polygons=polygons)) == []  # drawn over the edge


@pytest.mark.parametrize("polygons", [True, False])
def test_pairs_of_corners_are_refused(judge, polygons):
    content = as_corners(form(*BOXES, polygons=polygons))
    first = "1 write .10.0, 12.0, 20.0, 20.0. in place of .10.0, 12.0, 30.0, 32.0."
    other = "2 write .40.0, 30.0, 30.0, 30.0. in place of"
    with pytest.raises(
        UsageError,
        match=r"fit as \[x1, y1, x2, y2\]: for annotation " + (first if polygons else other),
    ):
        judge(content)


def test_pairs_of_corners_in_the_first_corner_leave_no_image(judge):
    """Only the polygons tell."""
    content = as_corners(form((10, 12, 10), (15, 12, 12), (12, 9, 11)))
    with pytest.raises(UsageError, match="x1, y1, x2, y2"):
        judge(content)


def test_boxes_that_fit_neither_way_are_doubted(judge):
    content = form(*BOXES, polygons=False)
    for entry in content["annotations"][:2]:
        entry["bbox"][2] = 300
    (told,) = judge(content)
    assert told.startswith("2 of 4 boxes leave their image, first that of annotation 1, [10.0, ")
    content = form(*BOXES)
    content["annotations"][3]["bbox"] = [70, 10, 9, 9]
    (told,) = judge(content)
    assert told.startswith("1 of 4 boxes differ from their polygons, first that of annotation 4")


@pytest.mark.parametrize("boxes", [30 * [(10, 8, 60)], [(10, 10, 75)]])
def test_large_boxes_of_which_some_leave_their_image_are_no_corners(judge, boxes):
    """As those of objects that are hidden in part."""
    content = form(*boxes, polygons=False)
    for entry in content["annotations"][:3]:
        entry["bbox"] = [5, 8, 95, 79]
    (told,) = judge(content)
    assert "leave their image" in told and "not two corners" in told


def test_parts_of_the_image_are_refused(judge):
    content = form(*BOXES, polygons=False)
    for entry in content["annotations"]:
        entry["bbox"] = [value / 100 for value in entry["bbox"]]
    with pytest.raises(UsageError, match=r"parts of the image, such as \[0.1"):
        judge(content)


def test_a_slip_among_many_is_borne(judge):
    content = form(*(25 * BOXES))
    content["annotations"][0]["bbox"] = [70, 10, 9, 9]
    assert judge(content) == []


def test_masks_and_groups_are_not_compared(judge):
    content = as_corners(form((10, 12, 10), (15, 12, 12)))
    content["annotations"][0]["iscrowd"] = 1
    runs = {"size": [80, 100], "counts": [8000]}
    content["annotations"][1]["segmentation"] = runs
    before = copy.deepcopy(content)
    assert judge(content) == [] and content == before
