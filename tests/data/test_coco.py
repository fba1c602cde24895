"""Datasets of one's own in COCO's form: registered by a call and by a config."""

import json

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.config.keys import add_dnl_config
from dnl_d2.data import register_coco_dataset
from dnl_d2.data.datasets.configured import register_configured
from dnl_d2.errors import UsageError
from tests.data.coco_form import NAME, content


def test_registered_paths_follow_the_environment_and_the_file(folder, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/nowhere")
    register_coco_dataset(NAME, images="", json="file.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    (folder / "file.json").write_text(json.dumps(content()))
    records = DatasetCatalog.get(NAME)
    meta = MetadataCatalog.get(NAME)
    assert [r["file_name"] for r in records] == [str(folder / f"{n}.png") for n in (1, 2, 3)]
    assert meta.json_file == str(folder / "file.json") and meta.evaluator_type == "coco"
    assert meta.thing_classes == ["a", "b"]  # by their ids
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]  # 9, 3
    data = content()
    data["categories"].append({"id": 20, "name": "c"})
    (folder / "file.json").write_text(json.dumps(data))
    DatasetCatalog.get(NAME)
    assert meta.thing_classes == ["a", "b", "c"]


@pytest.fixture
def configured():
    cfg = get_cfg()
    add_dnl_config(cfg)
    return cfg.DATASETS


def test_a_config_declares_datasets(folder, configured):
    (folder / "file.json").write_text(json.dumps(content()))
    entry = {"NAME": NAME, "IMAGES": str(folder), "JSON": str(folder / "file.json")}
    configured.COCO = [entry]
    register_configured(configured)
    register_configured(configured)  # a config may be loaded twice
    assert len(DatasetCatalog.get(NAME)) == 3


@pytest.mark.parametrize(
    "entries, message",
    [
        ("x", "DATASETS.COCO is a list of mappings"),
        (["x"], r"DATASETS.COCO\[0\] is a mapping with NAME, IMAGES, JSON"),
        ([{"NAME": "x"}], r"COCO\[0\] lacks IMAGES, JSON"),
        ([{"NAME": "x", "IMAGES": "", "JSON": "y"}], r"COCO\[0\].IMAGES is a text"),
        ([{"NAME": "x", "IMAGES": "y", "JSN": "y"}], r"no key 'JSN'; did you mean JSON\?"),
        ([{"NAME": "coco_2017_val", "IMAGES": "y", "JSON": "y"}], "there is a dataset"),
        (2 * [{"NAME": NAME, "IMAGES": "y", "JSON": "y"}], r"COCO\[1\].*is there twice"),
    ],
)
def test_wrong_entries_of_a_config(configured, entries, message):
    configured.COCO = entries
    with pytest.raises(UsageError, match=message):
        register_configured(configured)
    assert NAME not in DatasetCatalog.list()


def test_folders_and_coco_share_their_names(configured):
    configured.FOLDERS = [{"NAME": NAME, "IMAGES": "x", "LABELS": "y", "CLASSES": ["z"]}]
    configured.COCO = [{"NAME": NAME, "IMAGES": "x", "JSON": "y"}]
    with pytest.raises(UsageError, match=r"DATASETS.COCO\[0\].NAME: .* is there twice"):
        register_configured(configured)
