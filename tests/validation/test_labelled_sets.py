"""Where labelled sets come from: folders and registered datasets."""

import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.data import register_sem_seg_folder
from dnl_d2.errors import UsageError
from dnl_d2.validation import (
    folder_set,
    inspect_sets,
    registered_set,
)
from tests.validation.pictures import ABC, BLACK, GREEN, RED, drawn, found

NAME = "inspected"


def test_one_folder_for_images_and_labels_is_refused(make, tmp_path):
    folder = make(drawn(0, 1, 2))[1]
    (tmp_path / "link").symlink_to(folder)
    for other in (folder, f"{folder}/", str(tmp_path / "link")):
        with pytest.raises(UsageError, match="images and labels are both in"):
            folder_set("t", folder, other)


def test_an_ending_behind_the_stem_is_found_out(make):
    folders = make(*[drawn(0, 1, 2)] * 3)
    for number in range(3):
        os.rename(f"{folders[1]}/{number}.png", f"{folders[1]}/{number}_mask.png")
    findings = found(folder_set("t", *folders, classes=ABC))
    assert set(findings) == {"image_without_label", "label_without_image"}
    assert "'_mask'" in findings["image_without_label"].text


def test_missing_empty_and_nested_folders_are_told(make, tmp_path):
    folders = make(drawn(0, 1, 2))
    with pytest.raises(UsageError, match=r"label folder .*gone does not exist"):
        folder_set("t", folders[0], str(tmp_path / "gone"))
    findings = found(folder_set("t", str(tmp_path), folders[1], classes=ABC))
    assert f"subfolders are not read: {tmp_path}/train" in findings["no_images"].text
    assert "label_without_image" in findings


def test_a_registered_set_that_cannot_be_loaded_is_still_read(make, tmp_path):
    folders = make(*[drawn(0, 1, 2)] * 3)
    register_sem_seg_folder(NAME, *folders, classes=ABC, colors=[BLACK, RED, GREEN])
    assert found(registered_set(NAME)) == {}
    assert registered_set(NAME).colors == [BLACK, RED, GREEN]
    assert set(found(registered_set(NAME), num_classes=2)) == {"num_classes", "invalid_value"}
    (tmp_path / "train/1.png").write_bytes(b"text")
    source = registered_set(NAME)
    assert len(source.pairs) == 3
    assert set(found(source)) == {"cannot_load", "broken"}


def test_unknown_and_other_datasets_are_refused():
    with pytest.raises(UsageError, match=r"'camvid' is not registered.*camvid_sem_seg_train"):
        registered_set("camvid")
    with pytest.raises(UsageError, match=r"not for semantic segmentation.*detection.*train_net"):
        registered_set("coco_2017_val")


def test_records_without_a_label_are_told(make):
    folders = make(drawn(0, 1, 2), drawn(0, 1, 2))
    records = [
        {"file_name": f"{folders[0]}/0.png", "sem_seg_file_name": f"{folders[1]}/0.png"},
        {"file_name": f"{folders[0]}/1.png"},
    ]
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(stuff_classes=ABC, evaluator_type="sem_seg")
    for training in (True, False):
        findings = found(registered_set(NAME, for_training=training))
        assert set(findings) == {"unlabelled"}
        assert findings["unlabelled"].files == [f"{folders[0]}/1.png"]


def test_own_pictures_without_classes_are_read(make):
    folders = make(drawn(0, 1, 2))
    register_sem_seg_folder(NAME, *folders, classes=ABC)
    register_sem_seg_folder(f"{NAME}_new", folders[0])
    sets = [registered_set(NAME), registered_set(f"{NAME}_new", for_training=False)]
    findings = [finding.code for name, finding in inspect_sets(sets).findings if name != NAME]
    assert "prediction_only" in findings and "other_classes" not in findings


def test_a_set_without_labels_is_for_prediction_only(make):
    image = f"{make(drawn(0, 1, 2))[0]}/0.png"
    DatasetCatalog.register(NAME, lambda: [{"file_name": image}])
    MetadataCatalog.get(NAME).set(stuff_classes=ABC, evaluator_type="cityscapes_sem_seg")
    assert found(registered_set(NAME))["unlabelled"].level == "error"
    findings = found(registered_set(NAME, for_training=False))
    assert set(findings) == {"prediction_only"}
    assert findings["prediction_only"].line("x") == ("warning: x: no labels: only for prediction")
