"""Pixels in the middle of what is predicted."""

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

from dnl_d2.prediction import Detections, Segmentation
from dnl_d2.prediction.pixels import Point, points_of

CLASSES = ["road", "sky", "car", "tree"]


def segmentation(labels):
    image = np.zeros((*labels.shape, 3), np.uint8)
    return points_of(image, Segmentation(image, labels, CLASSES))


def test_the_largest_classes_in_order_of_size():
    labels = np.zeros((400, 600), int)  # larger than the grid that middles are looked for on
    labels[:150] = 1
    labels[300:360, 400:500] = 2
    labels[:4, :4] = 3
    road, sky, car = segmentation(labels)
    assert [p.name for p in (road, sky, car)] == ["road", "sky", "car"]
    assert abs(sky.row - 75) < 8 and 75 < sky.column < 525
    assert abs(car.row - 330) < 8 and abs(car.column - 450) < 22
    assert labels[road.pixel] == 0 and str(car) == f"{car.row},{car.column} (car)"


def test_a_pixel_lies_in_its_class_whatever_its_form():
    """A ring has its middle outside; single pixels are between those of the grid."""
    rows, columns = np.mgrid[:200, :200]
    ring = np.abs(np.hypot(rows - 100, columns - 100) - 80) < 6
    for labels in (ring.astype(int), np.where((rows == 7) & (columns == 13), 3, 0)):
        for point in segmentation(labels):
            assert CLASSES[labels[point.pixel]] == point.name
    (point,) = segmentation(np.full((1, 1), 2))
    assert point == Point(0, 0, "car")


def detections(**fields):
    image = np.zeros((60, 80, 3), np.uint8)
    found = Instances((60, 80), **fields)
    return points_of(image, Detections(image, found, CLASSES, Metadata()))


def test_the_largest_objects():
    boxes = Boxes(torch.tensor([[10.0, 20, 20, 30], [30, 10, 70, 50], [79.5, 59.5, 80, 60]]))
    classes, scores = torch.tensor([1, 2, 3]), torch.ones(3)
    fields = {"pred_boxes": boxes, "pred_classes": classes, "scores": scores}
    car, sky, tree = detections(**fields)
    assert (car.name, sky.name, tree.name) == ("car", "sky", "tree")
    assert abs(car.row - 30) < 2 and abs(car.column - 50) < 2 and tree.pixel == (59, 79)
    masks = torch.zeros(3, 60, 80, dtype=torch.bool)
    masks[1, 40:50, 60:70] = True  # a corner of its box; the others have no pixel
    car, sky, _ = detections(**fields, pred_masks=masks)
    assert masks[1][car.pixel] and 20 <= sky.row <= 30


def test_without_objects_the_middle():
    nothing = {"pred_boxes": Boxes(torch.zeros(0, 4)), "scores": torch.zeros(0)}
    assert detections(**nothing, pred_classes=torch.zeros(0, dtype=int)) == [Point(30, 40)]
    assert points_of(np.zeros((1, 1, 3)), None) == [Point(0, 0)]
