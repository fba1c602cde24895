"""Names and colours beside a picture."""

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

from dnl_d2.page.legend import legend
from dnl_d2.prediction import Detections, Segmentation

IMAGE = np.zeros((10, 20, 3), np.uint8)


def test_classes_the_most_frequent_first():
    labels = np.zeros((10, 20), int)
    labels[0, 0], labels[5:] = 2, 1
    text = legend(Segmentation(IMAGE, labels, ["sky", "<road>", "car"], [(1, 2, 3)] * 3))
    assert text.index("&lt;road&gt; <small>50 %") < text.index("sky <small>50 %")
    assert text.index("sky") < text.index("car <small>&lt; 1 %")
    assert text.count("<span>") == 3 and "rgb(1, 2, 3)" in text


def test_objects_with_their_numbers():
    boxes = Boxes(torch.tensor([[0.0, 0, 4, 4]] * 3))
    classes = torch.tensor([1, 0, 1])
    found = Instances((10, 20), pred_boxes=boxes, scores=torch.ones(3), pred_classes=classes)
    text = legend(Detections(IMAGE, found, ["disc", "ring"], Metadata()))
    assert text.index("2 x ring") < text.index("1 x disc")
    assert "no object found" in legend(Detections(IMAGE, found[[]], ["disc"], Metadata()))
