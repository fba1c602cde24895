"""Figures on files as annotation tools write them, against pycocotools on a cleaned copy."""

import json
import math
import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from dnl_d2.data import register_coco_dataset
from dnl_d2.errors import UsageError
from dnl_d2.evaluation.coco import COCOEvaluator
from tests.data.odd_coco_files import CLASSES, ODD, SIZE, each, sound, without
from tests.evaluation.coco_data import encode, evaluated

NAME = "evaluation_test_truth"


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """What a test registers is gone after it."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog))


def perfect(form, *, moved=0):
    """The file's objects as predictions, by name of the image."""
    found = {}
    for image in form["images"]:
        entries = [a for a in form["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in entries]).float()
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances(SIZE, pred_boxes=Boxes(boxes + moved))
        instances.scores = torch.linspace(0.9, 0.8, len(entries))
        instances.pred_classes = torch.tensor([CLASSES.index(a["category_id"]) for a in entries])
        shapes = [coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], *SIZE)) for a in entries]
        masks = np.stack([coco_mask.decode(shape) for shape in shapes])
        instances.pred_masks = torch.from_numpy(np.roll(masks, moved, 2)).bool()
        found[image["file_name"]] = instances
    return found


def figures(form, predictions, folder, *, text=None):
    """Registers the file, evaluates, and returns the figures and the results that were written."""
    path = folder / "file.json"
    path.write_bytes(text if text is not None else json.dumps(form).encode())
    register_coco_dataset(NAME, images="", json=str(path))
    evaluator = COCOEvaluator(NAME, output_dir=str(folder / "out"))
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        evaluator.process(
            [record], [{"instances": predictions[os.path.basename(record["file_name"])]}]
        )
    found = evaluator.evaluate()
    return found, json.loads((folder / "out" / "coco_instances_results.json").read_text())


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_files_have_the_figures_of_a_cleaned_copy(change, tmp_path):
    form = sound()
    change(form)
    predictions = perfect(sound())
    found, results = figures(form, predictions, tmp_path)
    assert found["bbox"]["AP"] == found["segm"]["AP"] == pytest.approx(100)
    # The results name images and categories as the file does.
    images, categories = ({e["id"] for e in form[key]} for key in ("images", "categories"))
    assert {result["image_id"] for result in results} <= images
    assert {result["category_id"] for result in results} == categories
    moved = perfect(sound(), moved=1)
    found, _ = figures(form, moved, tmp_path)
    _, plain = figures(sound(), moved, tmp_path)
    for task in ("bbox", "segm"):
        slow = evaluated(COCOeval, sound(), plain, task).stats * 100
        values = list(found[task].values())[:6]
        assert np.allclose(values, np.where(slow[:6] < 0, math.nan, slow[:6]), equal_nan=True)
        assert 20 < values[0] < 99


@pytest.mark.parametrize(
    "encode_text",
    [lambda text: b"\xef\xbb\xbf" + text.encode(), lambda text: text.encode("utf-16")],
    ids=["byte-order mark", "UTF-16"],
)
def test_text_that_editors_write(encode_text, tmp_path):
    text = encode_text(json.dumps(sound()))
    found, _ = figures(None, perfect(sound()), tmp_path, text=text)
    assert found["bbox"]["AP"] == found["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("shape", [[[]], None, [], "absent"])
def test_boxes_without_masks(shape, tmp_path):
    form = sound()
    (without("segmentation") if shape == "absent" else each("segmentation", shape))(form)
    predictions = perfect(sound())
    for found in predictions.values():
        found.remove("pred_masks")
    without("area")(form)
    found, _ = figures(form, predictions, tmp_path)
    assert found["bbox"]["AP"] == pytest.approx(100) and found["bbox"]["APs"] > 99


NEITHER = {
    "flat": {"bbox": [5, 5, 0, 20]},
    "outside": {"bbox": [90, 5, 9, 9]},
    "thin": {"segmentation": [[5, 5, 9, 9], [5, 5, 9]]},
    "crowd": {"iscrowd": 1},
    "crowd of texts": {"iscrowd": "1"},
    "crowd without a mask": {"iscrowd": 1, "segmentation": None},
}


@pytest.mark.parametrize("values", NEITHER.values(), ids=NEITHER)
def test_what_is_not_learned_is_not_missed(values, tmp_path):
    form = sound()
    form["annotations"].append({**form["annotations"][0], "id": 99, **values})
    found, _ = figures(form, perfect(sound()), tmp_path)
    assert found["bbox"]["AP"] == found["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    "ids", [(-1, 0, 1), (3, 1, -5), ("a", "b", "7"), (0.5, 1, 2)], ids=["-1", "-5", "text", "0.5"]
)
@pytest.mark.parametrize("with_file", [True, False], ids=["JSON", "records"])
def test_records_of_another_loader_keep_their_ids(ids, with_file, tmp_path):
    """Detectron2's own registration of a file, and a function that lists records."""
    form, names = sound(), {}
    for image, number in zip(form["images"], ids, strict=True):
        for entry in form["annotations"]:
            if entry["image_id"] == image["id"]:
                entry["image_id"] = number
        names[number] = image["file_name"]
        image["id"] = number
    path = tmp_path / "file.json"
    path.write_text(json.dumps(form))
    if with_file and len({type(number) for number in ids}) == 1:
        register_coco_instances(NAME, {}, str(path), "")
    else:
        records = [
            {
                **{key: image[key] for key in ("file_name", "height", "width")},
                "image_id": image["id"],
                "annotations": [
                    {
                        **{key: entry[key] for key in ("bbox", "iscrowd", "segmentation")},
                        "bbox_mode": BoxMode.XYWH_ABS,
                        "category_id": CLASSES.index(entry["category_id"]),
                    }
                    for entry in form["annotations"]
                    if entry["image_id"] == image["id"]
                ],
            }
            for image in form["images"]
        ]
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(thing_classes=["c3", "c5"])
    predictions = perfect(sound())
    evaluator = COCOEvaluator(NAME, output_dir=str(tmp_path / "out"))
    for kept in (3, 2):  # without the third, a third of the objects is missed
        evaluator.reset()
        for record in DatasetCatalog.get(NAME)[:kept]:
            found = {"instances": predictions[os.path.basename(record["file_name"])]}
            evaluator.process([record], [found])
        figures = evaluator.evaluate()
        assert figures["bbox"]["AP"] == pytest.approx(100 if kept == 3 else 66.3, abs=0.1)
        assert figures["segm"]["AP"] == figures["bbox"]["AP"]
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert {result["image_id"] for result in written} < set(ids)


def test_a_file_that_only_this_librarys_loader_bears(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(sound()).encode())
    register_coco_instances(NAME, {}, str(path), "")
    with pytest.raises(UsageError, match=f"dataset {NAME}: {path}: .* or declare the dataset in"):
        COCOEvaluator(NAME, output_dir=str(tmp_path))


@pytest.mark.parametrize("runs", [{"size": [60, 80], "counts": [4800]}, encode(np.zeros(SIZE))])
def test_an_object_with_empty_run_lengths_is_a_box_as_in_training(runs, tmp_path):
    form = sound()
    predictions = perfect(form)
    for found in predictions.values():
        found.remove("pred_masks")
    form["annotations"][0]["segmentation"] = runs
    assert figures(form, predictions, tmp_path)[0]["bbox"]["AP"] == pytest.approx(100)
    first = predictions[form["images"][0]["file_name"]]
    predictions[form["images"][0]["file_name"]] = first[1:]  # without the one of that object
    assert 20 < figures(form, predictions, tmp_path)[0]["bbox"]["AP"] < 95


def test_keypoints_of_several_lengths_are_not_evaluated_but_boxes_are(tmp_path):
    form = sound()
    form["annotations"][0]["keypoints"] = [5, 5, 2]
    form["annotations"][1]["keypoints"] = [5, 5, 2, 6, 6, 2]
    predictions = perfect(form)
    assert figures(form, predictions, tmp_path)[0]["bbox"]["AP"] == pytest.approx(100)
    for found in predictions.values():
        found.pred_keypoints = torch.ones(len(found), 1, 3)
    message = f"dataset {NAME}: an object has 2 keypoints, others have 1: write all"
    with pytest.raises(UsageError, match=message):
        figures(form, predictions, tmp_path)


def test_keypoints_are_completed(tmp_path):
    """An object without keypoints, and no ``num_keypoints``: pycocotools ends in a KeyError."""
    form = sound()
    for entry in form["annotations"][:-1]:
        x, y, side, _ = entry["bbox"]
        entry["keypoints"] = [x + 1, y + 1, 2, x + side - 1, y + side - 1, 1]
    predictions = perfect(form)
    for image in form["images"]:
        entries = [a for a in form["annotations"] if a["image_id"] == image["id"]]
        points = [a.get("keypoints", [0, 0, 0] * 2) for a in entries]
        moved = torch.tensor(points).float().reshape(-1, 2, 3)
        moved[..., :2] += 0.5  # Detectron2 takes points for the middle of pixels
        predictions[image["file_name"]].pred_keypoints = moved
    path = tmp_path / "file.json"
    path.write_text(json.dumps(form))
    register_coco_dataset(NAME, images="", json=str(path))
    evaluator = COCOEvaluator(NAME, output_dir=str(tmp_path), kpt_oks_sigmas=[0.1, 0.1])
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        evaluator.process(
            [record], [{"instances": predictions[os.path.basename(record["file_name"])]}]
        )
    assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100)
