"""Names of datasets: Detectron2's stay Detectron2's, and ours are listed once in a run."""

import json
import os
import subprocess
import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.data import register_coco_dataset, register_sem_seg_folder
from dnl_d2.data.datasets import coco
from dnl_d2.data.datasets.registration import listed_once, register_dataset
from dnl_d2.errors import UsageError
from dnl_d2.preparation import prepare_dataset
from dnl_d2.synthetic import generate_instances
from tests.miniatures import build_ade20k, build_cityscapes

NAME = "test_registration_data"
READ = [
    "cityscapes_fine_sem_seg_train", "ade20k_sem_seg_train", "cityscapes_fine_instance_seg_train",
]  # fmt: skip


@pytest.fixture(scope="module")
def detectron2_names(tmp_path_factory) -> dict:
    """What :mod:`tests.data.detectron2_names` finds."""
    root = tmp_path_factory.mktemp("datasets")
    for build, name in ((build_cityscapes, "cityscapes"), (build_ade20k, "ade20k")):
        build(root)
        prepare_dataset(name, root=str(root))
    environment = os.environ | {"DETECTRON2_DATASETS": str(root)}
    command = [sys.executable, "-m", "tests.data.detectron2_names", str(root / "found.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "found.json").read_text())


def test_an_import_changes_no_name_of_detectron2(detectron2_names):
    assert set(READ) <= set(detectron2_names["names"])
    assert detectron2_names["other loader"] == []
    assert detectron2_names["other metadata"] == []
    assert detectron2_names["other records"] == []
    assert "cityscapes_sem_seg_train" in detectron2_names["ours"]


@pytest.mark.parametrize("name", READ)
def test_detectron2s_own_datasets_are_checked_and_evaluated(name, detectron2_names):
    if name in detectron2_names["unreadable"]:  # official, since December 2024
        pytest.skip(f"Detectron2 cannot read it here: {detectron2_names['unreadable'][name]}")
    instances = "instance" in name
    assert detectron2_names["figures"][name] == pytest.approx(0 if instances else 100)
    if instances:
        assert detectron2_names["masks"] == ["PolygonMasks"] * 3


@pytest.mark.parametrize(
    "register",
    [
        lambda name: register_sem_seg_folder(name, "images", "labels", classes=["x"]),
        lambda name: register_coco_dataset(name, images="images", json="x.json"),
        lambda name: register_dataset(name, list, {}, classes=["x"]),
    ],
)
def test_detectron2s_names_are_not_taken(register):
    name = "ade20k_sem_seg_val"
    before = DatasetCatalog[name], dict(vars(MetadataCatalog.get(name)))
    with pytest.raises(UsageError, match=r"'ade20k_sem_seg_val' already.*DatasetCatalog.remove"):
        register(name)
    assert (DatasetCatalog[name], dict(vars(MetadataCatalog.get(name)))) == before


@pytest.fixture
def listings() -> list[str]:
    """Where the dataset of this name was listed."""
    found = []

    def load(image_root: str) -> list[dict]:
        found.append(image_root)
        return [{"file_name": "a.png", "boxes": [[1, 2]]}]

    register_dataset(NAME, load, {"image_root": "images"}, classes=["x"])
    return found


def test_a_dataset_is_listed_once_and_each_gets_its_own_copy(listings):
    with listed_once():
        first = DatasetCatalog.get(NAME)
        first[0]["boxes"][0][0] = first[0]["file_name"] = None
        with listed_once():
            second = DatasetCatalog.get(NAME)
        second[0]["boxes"].clear()
        third = DatasetCatalog.get(NAME)
    assert third == [{"file_name": "a.png", "boxes": [[1, 2]]}]
    assert len(listings) == 1
    DatasetCatalog.get(NAME)
    DatasetCatalog.get(NAME)
    with listed_once():
        DatasetCatalog.get(NAME)
    assert len(listings) == 4


def test_another_root_is_listed_anew(listings, monkeypatch):
    with listed_once():
        for root in ("one", "two", "two"):
            monkeypatch.setenv("DETECTRON2_DATASETS", root)
            DatasetCatalog.get(NAME)
            assert MetadataCatalog.get(NAME).image_root == f"{root}/images"
    assert listings == ["one/images", "two/images"]


def test_what_is_registered_again_is_listed_anew(listings):
    with listed_once():
        DatasetCatalog.get(NAME)
        register_dataset(NAME, lambda: [{"file_name": "b.png"}], {}, classes=["x"])
        assert DatasetCatalog.get(NAME) == [{"file_name": "b.png"}]


def test_a_file_of_annotations_is_read_once(tmp_path, monkeypatch):
    generate_instances(str(tmp_path / "generated_instances"), train=2, val=1, size=(64, 96))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    read, load = [], coco.load_coco_json
    monkeypatch.setattr(coco, "load_coco_json", lambda *args: read.append(args) or load(*args))
    folder = "generated_instances"
    annotations = f"{folder}/annotations/instances_train.json"
    register_coco_dataset(NAME, images=f"{folder}/train", json=annotations)
    for dataset in (NAME, "generated_instances_train"):
        meta = MetadataCatalog.get(dataset)
        read.clear()
        with listed_once():
            first = DatasetCatalog.get(dataset)
            known = len(meta.thing_classes), len(meta.thing_dataset_id_to_contiguous_id)
            meta.set_paths()
            assert DatasetCatalog.get(dataset) == first
        assert known == (7, 7) == (
            len(meta.thing_classes), len(meta.thing_dataset_id_to_contiguous_id)
        )  # fmt: skip
        assert len(read) == 1


def test_a_file_of_other_classes_than_told_is_refused(tmp_path, monkeypatch):
    generate_instances(str(tmp_path / "drawn"), train=1, val=1, size=(64, 96))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    file = "drawn/annotations/instances_train.json"
    register_coco_dataset(NAME, images="drawn/train", json=file, classes=["a", "b"])
    with pytest.raises(UsageError, match=rf"{NAME}: .*{file} cannot be used .*'thing_classes'"):
        DatasetCatalog.get(NAME)
    assert MetadataCatalog.get(NAME).thing_classes == ["a", "b"]
