"""Cityscapes instances, read from maps of instance ids."""

import pathlib

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from dnl_d2.data.datasets.cityscapes_instances import read_instances
from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError

NAME = "cityscapes_instances_train"
CONFIG = str(
    pathlib.Path(__file__).parents[2]
    / "configs/cityscapes-instance/mask_rcnn_r50_fpn_gc_r16_c3-c5_24k_cityscapes-instance.yaml"
)


def instance_map():
    """Two cars, one of them split in two, a group of persons, a rider, stuff and void."""
    ids = np.full((40, 60), 7, dtype=np.uint16)
    ids[:5] = 0
    ids[10:20, 5:15] = ids[12:18, 30:33] = 26000
    ids[10:14, 20:28] = 26001
    ids[25:35, 40:60] = 24
    ids[39, 59] = 25000
    return ids


@pytest.fixture
def root(tmp_path, save, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for number in range(2):
        stem = f"aachen/aachen_00000{number}_000019"
        image = np.zeros((40, 60, 3), np.uint8)
        save(f"cityscapes/leftImg8bit/train/{stem}_leftImg8bit.png", image)
        save(f"cityscapes/gtFine/train/{stem}_gtFine_instanceIds.png", instance_map())
    return tmp_path / "cityscapes"


def test_objects_are_the_pixels_of_their_ids(root):
    (path,) = root.glob("gtFine/train/aachen/*00_000019*")
    found = read_instances(str(path))
    expected = [(24, 0, 1), (25000, 1, 0), (26000, 2, 0), (26001, 2, 0)]
    assert [(o["category_id"], o["iscrowd"]) for o in found] == [e[1:] for e in expected]
    for instance, (value, _, _) in zip(found, expected, strict=True):
        mask = instance_map() == value
        assert (coco_mask.decode(instance["segmentation"]) == mask).all()
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert instance["bbox"] == box and instance["bbox_mode"] == BoxMode.XYXY_ABS


def test_the_registered_split_trains_with_the_recipe(root):
    records = DatasetCatalog.get(NAME)
    assert [r["image_id"] for r in records] == ["aachen_000000_000019", "aachen_000001_000019"]
    assert MetadataCatalog.get(NAME).thing_classes == [
        "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"
    ]  # fmt: skip
    instances = DatasetMapper(load_config(CONFIG), True)(records[0])["instances"]
    assert sorted(instances.gt_classes.tolist()) == [1, 2, 2]
    assert instances.gt_masks.tensor.flatten(1).any(1).all()


def test_a_missing_label_is_named(root):
    next(root.glob("gtFine/train/aachen/*00_000019*")).unlink()
    with pytest.raises(UsageError, match=r"1 of 2 images .*: aachen/aachen_000000_000019"):
        DatasetCatalog.get(NAME)


def test_the_test_split_needs_no_labels(root):
    (root / "leftImg8bit/train").rename(root / "leftImg8bit/test")
    records = DatasetCatalog.get("cityscapes_instances_test")
    assert len(records) == 2 and "annotations" not in records[0]
