"""Predictions beside the truth: what is on the pictures, and what they leave as it was."""

import random
import shutil

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage

from dnl_d2.reporting.pictures import PredictionPictures, draw_beside_truth

NAME = "reporting_pictures_val"
COLORS = [(10, 0, 0), (0, 20, 0), (0, 0, 30)]


class Striped(torch.nn.Module):
    """Predicts class 1 in the left half and class 2 in the right one; draws random numbers."""

    def forward(self, inputs):
        assert not self.training and not torch.is_grad_enabled()
        torch.rand(3), np.random.rand(3), random.random()
        height, width = inputs[0]["height"], inputs[0]["width"]
        scores = torch.zeros(3, height, width)
        scores[1, :, : width // 2], scores[2, :, width // 2 :] = 1, 1
        return [{"sem_seg": scores}]


@pytest.fixture
def dataset(pair):
    records = [{**pair, "number": number} for number in range(10)]
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).stuff_colors = COLORS
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def numbers():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_the_same_images_each_time_and_nothing_else_changes(dataset):
    seen, model = [], Striped()

    def mapper(record):
        seen.append(record["number"])
        return record

    pictures = PredictionPictures([NAME], 3, lambda: mapper)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = numbers()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with EventStorage(5) as storage:
        pictures.show(model)
        assert numbers() == expected and model.training
        pictures.show(model.eval())
        assert not model.training
    assert seen == [0, 3, 6] * 2
    name, picture, iteration = storage._vis_data[0]
    assert (name, iteration, len(storage._vis_data)) == (f"{NAME}/0-image", 5, 6)
    assert picture.shape == (3, 30, 3 * 40 + 8) and picture.dtype == np.uint8


def test_none_asked_for(dataset):
    with EventStorage() as storage:
        PredictionPictures([NAME], 0, lambda: pytest.fail("not needed")).show(Striped())
    assert not storage._vis_data


def test_what_fails_is_one_warning(dataset, caplog):
    model = torch.nn.Linear(1, 1)
    with EventStorage():
        pictures = PredictionPictures([NAME], 1, lambda: lambda record: record)
        pictures.show(model)
        pictures.show(model)
    assert model.training
    assert caplog.text.count("no pictures of predictions: TypeError") == 1


def test_classes_from_left_to_right(pair):
    output = Striped().eval()
    with torch.no_grad():
        scores = output([pair])[0]
    meta = MetadataCatalog.get("reporting_no_dataset").set(stuff_colors=COLORS)
    drawn = draw_beside_truth(pair, scores, meta)["sem_seg"]
    MetadataCatalog.remove("reporting_no_dataset")
    _, prediction, truth = drawn[:, :40], drawn[:, 44:84], drawn[:, 88:]
    assert {*map(tuple, prediction[:, :20].reshape(-1, 3))} == {COLORS[1]}
    assert {*map(tuple, prediction[:, 20:].reshape(-1, 3))} == {COLORS[2]}
    assert {*map(tuple, truth.reshape(-1, 3))} == {*COLORS, (0, 0, 0)}
    assert not truth[:2].any()  # void is black
    without = {key: value for key, value in pair.items() if key != "sem_seg_file_name"}
    assert draw_beside_truth(without, scores, meta)["sem_seg"].shape == (30, 84, 3)


def test_what_the_dataset_ignores_is_black(pair, save):
    """Also where it is the number of a class, or there are more classes than an 8-bit map has."""
    label = np.zeros((30, 40), np.uint16)
    label[:, 20:], label[:, 30:] = 65535, 2
    record = pair | {"sem_seg_file_name": save("label.png", label)}
    meta = MetadataCatalog.get("reporting_no_dataset").set(stuff_colors=COLORS, ignore_label=0)
    drawn = [
        draw_beside_truth(record, {"sem_seg": torch.rand(classes, 30, 40)}, meta)["sem_seg"]
        for classes in (3, 300)
    ]
    MetadataCatalog.remove("reporting_no_dataset")
    for picture in drawn:
        truth = picture[:, 88:]
        assert not truth[:, :30].any() and {*map(tuple, truth[:, 30].tolist())} == {COLORS[2]}


def test_files_of_one_name_are_several_pictures(dataset, tmp_path):
    for number, record in enumerate(dataset):
        folder = tmp_path / str(number)
        folder.mkdir()
        record["file_name"] = shutil.copy(record["file_name"], folder / "frame.png")
    with EventStorage() as storage:
        PredictionPictures([NAME], 2, lambda: lambda record: record).show(Striped())
    assert [name for name, *_ in storage._vis_data] == [f"{NAME}/0-frame", f"{NAME}/1-frame"]


def test_objects_and_large_images(save):
    record = {"file_name": save("x.png", np.zeros((60, 2000, 3), np.uint8))}
    record["annotations"] = [
        {"bbox": [0, 0, 1000, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    ]
    found = Instances((60, 2000))
    found.pred_boxes = Boxes(torch.tensor([[1200.0, 0, 2000, 60], [0, 0, 1000, 60]]))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.4]), torch.tensor([0, 0])
    meta = MetadataCatalog.get("reporting_no_objects")
    drawn = draw_beside_truth(record, {"instances": found}, meta)["instances"]
    MetadataCatalog.remove("reporting_no_objects")
    assert drawn.shape == (15, 3 * 512 + 8, 3)
    image, prediction, truth = drawn[:, :512], drawn[:, 516:1028], drawn[:, 1032:]
    assert not image.any()
    assert prediction[:, 300:].any() and not prediction[:, :250].any()  # 0.4 is too low
    assert truth[:, :250].any() and not truth[:, 300:].any()
