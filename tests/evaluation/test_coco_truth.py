"""Figures on files as annotation tools write them, against pycocotools on a cleaned copy."""

import copy
import json
import math
import os

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from dnl_d2.data import register_coco_dataset
from dnl_d2.evaluation.coco import COCOEvaluator
from tests.evaluation.coco_data import encode, evaluated

NAME = "evaluation_test_truth"
SIZE = (60, 80)  # height, width
IDS = (7, 9, 12)  # of images
CLASSES = (3, 5)


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """What a test registers is gone after it."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog))


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def sound():
    """Three images with three objects each, as COCO writes them."""
    images = [{"id": n, "file_name": f"{n}.png", "height": 60, "width": 80} for n in IDS]
    annotations = []
    for image in IDS:
        for place, side in enumerate((9, 14, 20)):
            x, y = 4 + 22 * place, 3 + image
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": CLASSES[place % 2],
                "bbox": [x, y, side, side], "area": side * side, "iscrowd": 0,
                "segmentation": [square(x, y, side)],
            })  # fmt: skip
    categories = [{"id": c, "name": f"c{c}"} for c in CLASSES]
    return {"images": images, "annotations": annotations, "categories": categories}


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


def each(key, value):
    """Changes a key of all annotations: a value, or a function of number and annotation."""

    def change(form):
        for number, entry in enumerate(form["annotations"]):
            entry[key] = value(number, entry) if callable(value) else value

    return change


def without(key):
    def change(form):
        for entry in form["annotations"]:
            del entry[key]

    return change


def with_ids(key, reference, make):
    def change(form):
        for entry in form[key]:
            entry["id"] = make(entry["id"])
        for entry in form["annotations"]:
            entry[reference] = make(entry[reference])

    return change


def mixed_ids(form):
    """Texts in one place, numbers in the other."""
    for image in form["images"]:
        image["id"] = str(image["id"])
    form["images"][0]["id"] = 7


def sizes(make):
    def change(form):
        for image in form["images"]:
            image["height"], image["width"] = make(image["height"]), make(image["width"])

    return change


def packed(form):
    for entry in form["annotations"]:
        mask = coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], *SIZE))[..., 0]
        entry["segmentation"] = encode(mask)
        entry["segmentation"]["size"] = [60.0, "80"]


def listed_twice(form):
    form["images"] += copy.deepcopy(form["images"])


ODD = {
    "annotation ids from 0": each("id", lambda number, _: number),
    "negative annotation ids": each("id", lambda number, _: -number),
    "fractions as annotation ids": each("id", lambda number, _: number / 2),
    "texts as annotation ids": each("id", lambda number, _: f"{number}a"),
    "one annotation id": each("id", 5),
    "annotation ids null": each("id", None),
    "no annotation ids": without("id"),
    "texts as image ids": with_ids("images", "image_id", lambda n: f"img{n}"),
    "numbers in texts as image ids": with_ids("images", "image_id", str),
    "negative image ids": with_ids("images", "image_id", lambda n: -n),
    "mixed image ids": mixed_ids,
    "image ids with a point": with_ids("images", "image_id", float),
    "huge image ids": with_ids("images", "image_id", lambda n: 10**30 + n),
    "image id 0": with_ids("images", "image_id", lambda n: n - 7),
    "texts as category ids": with_ids("categories", "category_id", lambda n: f"class {n}"),
    "category id 0": with_ids("categories", "category_id", lambda n: n - 3),
    "mixed category ids": with_ids("categories", "category_id", lambda n: n if n == 3 else "x"),
    "sizes with a point": sizes(float),
    "sizes as texts": sizes(str),
    "boxes as texts": each("bbox", lambda _, entry: [str(v) for v in entry["bbox"]]),
    "iscrowd null": each("iscrowd", None),
    "iscrowd false": each("iscrowd", False),
    "iscrowd a text": each("iscrowd", "0"),
    "no iscrowd": without("iscrowd"),
    "area null": each("area", None),
    "no area": without("area"),
    "area zero": each("area", 0),
    "area a text": each("area", lambda _, entry: str(entry["area"])),
    "packed masks": packed,
    "images listed twice": listed_twice,
    "one name": lambda form: [category.update(name="x") for category in form["categories"]],
    "numbers as names": lambda form: [c.update(name=c["id"]) for c in form["categories"]],
    "Windows paths": lambda form: [i.update(file_name=f"a\\{i['id']}.png") for i in form["images"]],
}


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
