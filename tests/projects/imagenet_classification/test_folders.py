"""Folders of pictures by class."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.errors import UsageError
from dnl_d2_imagenet import image_folder

NAME = "folders_test"
PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(autouse=True)
def forget(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def test_classes_are_folders_in_order(save, tmp_path):
    for path in ("b/2.png", "b/1.jpg", "a/deep/3.JPEG", "c/4.png", ".hidden/5.png"):
        save(f"train/{path}", PIXELS)
    (tmp_path / "train/a/notes.txt").write_text("")
    (tmp_path / "train/readme.txt").write_text("")
    records = image_folder(NAME, "train")
    root = tmp_path / "train"
    assert [(r["file_name"], r["category_id"]) for r in records] == [
        (str(root / "a/deep/3.JPEG"), 0),
        (str(root / "b/1.jpg"), 1),
        (str(root / "b/2.png"), 1),
        (str(root / "c/4.png"), 2),
    ]
    meta = MetadataCatalog.get(NAME)
    assert meta.classes == ["a", "b", "c"] and meta.evaluator_type == "classification"
    assert DatasetCatalog.get(NAME) == records
    assert image_folder(NAME, str(root)) == records  # again, by its whole path


def test_a_class_that_validation_lacks_keeps_its_number(save, caplog):
    for path in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "val/a/1.png", "val/c/1.png"):
        save(path, PIXELS)
    records = image_folder(NAME, "val", classes_from="train")
    assert [record["category_id"] for record in records] == [0, 2]
    assert "val has no picture of 1 of 3 classes: b" in caplog.text


def test_what_cannot_be_meant_is_refused(save, tmp_path):
    save("train/a/1.png", PIXELS)
    save("val/zebra/1.png", PIXELS)
    with pytest.raises(UsageError, match=r"has zebra, which .*/train has not: the model"):
        image_folder(NAME, "val", classes_from="train")
    with pytest.raises(UsageError, match=r"gone cannot be read .*val has all .*classes_from=null"):
        image_folder(NAME, "val", classes_from="gone")
    assert [r["category_id"] for r in image_folder(NAME, "val", classes_from=None)] == [0]
    with pytest.raises(UsageError, match=r"nowhere cannot be read \(No such file"):
        image_folder(NAME, "nowhere")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/1.tar").write_text("")
    with pytest.raises(UsageError, match="no folders, one for each class, but 1 tar files"):
        image_folder(NAME, "flat")
    (tmp_path / "empty/a").mkdir(parents=True)
    with pytest.raises(UsageError, match="no picture"):
        image_folder(NAME, "empty")
