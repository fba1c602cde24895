import importlib
import os
import re

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.data import load_sem_seg_folder, register_sem_seg_folder
from dnl_d2.data.datasets import camvid
from dnl_d2.errors import UsageError

NAME = "test_folder_data"
IMAGE = np.zeros((4, 6, 3), np.uint8)
LABEL = np.zeros((4, 6), np.uint8)


@pytest.fixture
def folders(tmp_path, save):
    for name in ("b.jpg", "a.png", "c.JPEG"):
        save(f"train/{name}", IMAGE)
    for stem in "cab":
        save(f"trainannot/{stem}.png", LABEL)
    return str(tmp_path / "train"), str(tmp_path / "trainannot")


def test_pairs_are_matched_by_stem_in_order(folders, tmp_path):
    records = load_sem_seg_folder(*folders)
    images = [os.path.basename(record["file_name"]) for record in records]
    labels = [os.path.basename(record["sem_seg_file_name"]) for record in records]
    assert images == ["a.png", "b.jpg", "c.JPEG"]
    assert labels == ["a.png", "b.png", "c.png"]
    assert all((record["height"], record["width"]) == (4, 6) for record in records)


def test_images_alone_need_no_classes(folders, tmp_path):
    register_sem_seg_folder(NAME, folders[0])
    records = DatasetCatalog.get(NAME)
    assert [os.path.basename(r["file_name"]) for r in records] == ["a.png", "b.jpg", "c.JPEG"]
    assert all("sem_seg_file_name" not in record for record in records)
    assert MetadataCatalog.get(NAME).get("stuff_classes") is None
    (tmp_path / "stems.txt").write_text("c\na\n")
    register_sem_seg_folder(NAME, folders[0], stems_file=str(tmp_path / "stems.txt"))
    listed = [os.path.basename(r["file_name"]) for r in DatasetCatalog.get(NAME)]
    assert listed == ["a.png", "c.JPEG"]
    with pytest.raises(UsageError, match="it has labels but no classes"):
        register_sem_seg_folder(NAME, *folders)
    with pytest.raises(UsageError, match=r"expected images [^ ]*\*\.\{jpg,jpeg,png\}; registered"):
        load_sem_seg_folder("nowhere")


@pytest.mark.parametrize(("wrong", "kind"), [(0, "image"), (1, "label")])
def test_missing_and_empty_folders_are_named_with_the_layout(folders, tmp_path, wrong, kind):
    (tmp_path / "empty").mkdir()
    paths = list(folders)
    for name, what in (("nowhere", "does not exist"), ("empty", f"holds no {kind}s")):
        paths[wrong] = str(tmp_path / name)
        with pytest.raises(UsageError, match=rf"{kind} folder .*{name} {what}.*\*\.png"):
            load_sem_seg_folder(*paths)


def test_images_without_label_are_counted_and_named(folders, save):
    for index in range(5):
        save(f"train/lone{index}.png", IMAGE)
    with pytest.raises(UsageError) as caught:
        load_sem_seg_folder(*folders)
    message = str(caught.value)
    assert re.match(r"5 of 8 files without a label in .*trainannot: ", message)
    assert "lone0.png" in message and "lone2.png, ..." in message and "lone3" not in message


def test_label_without_image_is_named(folders, save):
    save("trainannot/lone.png", LABEL)
    with pytest.raises(UsageError, match=r"1 of 4 files without an image .*lone\.png"):
        load_sem_seg_folder(*folders)


def test_two_images_of_one_stem_are_refused(folders, save):
    save("train/a.jpg", IMAGE)
    with pytest.raises(UsageError, match=r"both a\.jpg and a\.png"):
        load_sem_seg_folder(*folders)


def test_image_that_is_none_is_named(folders, tmp_path):
    (tmp_path / "train/a.png").write_bytes(b"text")
    with pytest.raises(UsageError, match=r"a\.png cannot be read"):
        load_sem_seg_folder(*folders)


def test_registered_paths_follow_the_environment_at_load_time(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "not-yet"))
    register_sem_seg_folder(NAME, "train", "trainannot", classes=["x"], colors=[(1, 2, 3)])
    with pytest.raises(UsageError, match="not-yet"):
        DatasetCatalog.get(NAME)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert len(DatasetCatalog.get(NAME)) == 3
    meta = MetadataCatalog.get(NAME)
    assert meta.image_root == folders[0] and meta.sem_seg_root == folders[1]
    assert meta.stuff_classes == ["x"] and meta.stuff_colors == [(1, 2, 3)]
    assert meta.evaluator_type == "sem_seg" and meta.ignore_label == 255


def test_absolute_paths_do_not_depend_on_the_environment(folders, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "elsewhere")
    register_sem_seg_folder(NAME, *folders, classes=["x"])
    assert len(DatasetCatalog.get(NAME)) == 3


def test_paths_from_the_home_folder(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", "elsewhere")
    register_sem_seg_folder(NAME, "~/train", "~/trainannot", classes=["x"])
    assert len(DatasetCatalog.get(NAME)) == 3


def test_registering_again_replaces(folders):
    register_sem_seg_folder(NAME, *folders, classes=["x"])
    register_sem_seg_folder(NAME, *folders, classes=["x", "y"], ignore_label=9)
    meta = MetadataCatalog.get(NAME)
    assert meta.stuff_classes == ["x", "y"] and meta.ignore_label == 9


def test_colors_must_match_classes(folders):
    with pytest.raises(UsageError, match="2 classes but 1 colors"):
        register_sem_seg_folder(NAME, *folders, classes=["x", "y"], colors=[(0, 0, 0)])


def test_camvid_is_registered_and_survives_a_reload(tmp_path, save, monkeypatch):
    importlib.reload(camvid)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    save("camvid/val/x.png", IMAGE)
    save("camvid/valannot/x.png", LABEL)
    assert len(DatasetCatalog.get("camvid_sem_seg_val")) == 1
    for split in ("train", "val"):
        meta = MetadataCatalog.get(f"camvid_sem_seg_{split}")
        assert len(meta.stuff_classes) == len(meta.stuff_colors) == 11
        assert meta.ignore_label == 11 and meta.evaluator_type == "sem_seg"
        assert meta.stuff_classes[3] == "road" and meta.stuff_colors[3] == (128, 64, 128)


def test_a_list_of_stems_picks_pairs(folders, tmp_path, save):
    save("train/lone.png", IMAGE)
    (tmp_path / "val.txt").write_bytes("\ufeffc\r\na\r\n\r\n".encode())
    records = load_sem_seg_folder(*folders, str(tmp_path / "val.txt"))
    assert [os.path.basename(record["file_name"]) for record in records] == ["a.png", "c.JPEG"]
    register_sem_seg_folder(NAME, *folders, classes=["x"], stems_file=str(tmp_path / "val.txt"))
    try:
        assert len(DatasetCatalog.get(NAME)) == 2
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nz\n", r"1 of 2 stems of .*val\.txt have no file in .*train: z$"),
        ("\n", r"list of stems .*val\.txt is empty"),
        (None, r"list of stems .*val\.txt cannot be read .*: give a text file"),
    ],
)
def test_a_wrong_list_of_stems_is_named(folders, tmp_path, text, message):
    path = tmp_path / "val.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_sem_seg_folder(*folders, str(path))
