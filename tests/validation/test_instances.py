"""What is found wrong with datasets in COCO's form before training."""

import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data.build import get_detection_dataset_dicts
from pycocotools import mask as coco_mask

from dnl_d2.data import register_coco_dataset
from dnl_d2.errors import UsageError
from dnl_d2.validation.instances import check_coco_dataset
from tests.data.coco_form import NAME, SQUARE, changed, content, with_image, without
from tests.evaluation.coco_data import encode
from tests.validation.coco_check import task

RUNS = {"size": [40, 60], "counts": [100, 200, 2100]}


def test_a_sound_file(check):
    line = f"Dataset {NAME}: 3 images, 6 annotations, 2 classes"
    assert check(content()) == line
    assert check(content(), test=True) == line


REFUSED = {
    "no JSON": ("{'images'", "cannot be read as JSON .*: replace the file"),
    "a list": ("[]", "the file has no 'images'"),
    "no categories": ({**content(), "categories": []}, "'categories' is empty"),
    "no list": ({**content(), "annotations": {}}, "'annotations' is no list"),
    "no size": (without("images", "height"), "number 0 of 'images' has no 'height'"),
    "no name": (without("categories", "name"), "number 0 of 'categories' has no 'name'"),
    "no box": (without("annotations", "bbox"), "annotation 1 has no 'bbox'"),
    "one image id": (with_image(id=2), "two of 'images' have the id 2: number them anew"),
    "category": (changed(category_id=4), "annotation 1 has the category_id 4: .* no such category"),
    "text": (changed(category_id="x"), "annotation 1 has the category_id 'x'"),
    "image": (changed(image_id=77), "annotation 1 has the image_id 77: there is no such image"),
    "short box": (changed(bbox=[1, 2, 3]), r"annotation 1 has the bbox \[1, 2, 3\]"),
    "negative": (changed(bbox=[1, 2, -3, 4]), "none of the last two negative"),
    "not a number": (changed(bbox=[float("nan"), 2, 3, 4]), "bbox .nan"),
    "ignore": (changed(ignore=1), "annotation 1 has 'ignore'.*use 'iscrowd'"),
    "runs of a size": (changed(segmentation={**RUNS, "size": [60, 40]}), r"1 has .*\[60, 40\]"),
    "runs of no size": (changed(segmentation={"counts": [2400]}), "1 has .* or run lengths"),
    "sum of runs": (changed(segmentation={**RUNS, "counts": [100, 200]}), "sum up to 300 .* 2400"),
    "text in runs": (changed(segmentation={**RUNS, "counts": ["a"]}), "1 has .* or run lengths"),
    "no code": (changed(segmentation={**RUNS, "counts": "a b"}), "1 has 'counts' that are no"),
    "no runs": (changed(segmentation={**RUNS, "counts": 2400}), "1 has .* or run lengths"),
    "crowd": (changed(iscrowd=1, segmentation={**RUNS, "counts": [1]}), "sum up to 1 pixels"),
    "text polygon": (changed(segmentation=[["a"] * 6]), "1 has .* a list of polygons"),
    "endless polygon": (changed(segmentation=[[float("inf"), *SQUARE[1:]]]), "1 has .* polygons"),
    "flat polygon": (changed(segmentation=SQUARE), "1 has .* a list of polygons"),
    "far polygon": (changed(segmentation=[[1e5, *SQUARE[1:]]]), "coordinate 100000, far outside"),
    "no mask": (changed(segmentation=[]), "annotation 1 has no mask.*set MASKS to false"),
}


@pytest.mark.parametrize("data, message", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("test", [False, True])
def test_what_is_wrong_is_told_in_a_line(check, data, message, test):
    with pytest.raises(UsageError, match=message) as error:
        check(data, test=test)
    text = str(error.value)
    assert text.startswith(f"dataset {NAME}: ") and "file.json: " in text and "\n" not in text


# What is odd, such an object, and what becomes of it in evaluation.
ODD = [
    ("crowd regions", {"iscrowd": 1, "segmentation": RUNS}, "detections there do not count"),
    ("boxes without area", {"bbox": [5, 5, 0, 20]}, "left out"),
    ("boxes outside of their image", {"bbox": [60, 5, 9, 9]}, "left out"),
    (
        "objects without a polygon of three points",
        {"segmentation": [[5, 5, 9, 9], [5, 5, 9, 9, 7]]},
        "left out",
    ),
]


@pytest.mark.parametrize("kind, values, evaluated", ODD, ids=["crowd", "flat", "outside", "thin"])
def test_what_is_left_out_is_counted_and_left_out(folder, check, kind, values, evaluated):
    data = changed(**values)
    assert check(data).endswith(f"; {kind}: 1 (left out)")
    assert check(data, test=True).endswith(f"; {kind}: 1 ({evaluated})")
    # Detectron2's loader and mapper do what the line says.
    register_coco_dataset(NAME, images=str(folder), json=str(folder / "file.json"))
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    mapper = DatasetMapper(cfg, True)
    records = get_detection_dataset_dicts([NAME])
    assert sorted(len(mapper(record)["instances"]) for record in records) == [1, 2, 2]


@pytest.mark.parametrize("keeps_empty, fate", [(False, "left out"), (True, "kept as background")])
def test_images_without_an_object_are_counted(check, keeps_empty, fate):
    data = content()
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 2]
    for test, told in ((False, fate), (True, "evaluated")):
        line = check(data, test=test, keeps_empty=keeps_empty)
        assert line.endswith(f"; images without an object: 1 ({told})")


@pytest.mark.parametrize("test", [False, True])
def test_keypoints_have_to_be_there(check, test):
    for data in (content(), changed(keypoints=[5, 5, 0])):
        with pytest.raises(UsageError, match=r"no .* visible .*set KEYPOINTS to false, or add"):
            check(data, test=test, keypoints_key="KEYPOINTS")
    check(changed(keypoints=[5, 5, 2]), test=test, keypoints_key="KEYPOINTS")


@pytest.mark.parametrize("test", [False, True])
def test_keypoints_are_equally_many_where_they_are_learned(check, test):
    data = changed(keypoints=[1, 2, 2])
    data["annotations"][3]["keypoints"] = [1, 2, 2, 3, 4, 2]
    check(data, test=test)
    with pytest.raises(UsageError, match="annotation 4 has 2 keypoints, others have 1: write all"):
        check(data, test=test, keypoints_key="KEYPOINTS")


@pytest.mark.parametrize(
    "runs",
    [{**RUNS, "counts": [2400]}, {**RUNS, "counts": [2400, 0]}, encode(np.zeros((40, 60)))],
    ids=["one run", "two runs", "compressed"],
)
def test_run_lengths_without_a_pixel_are_no_mask(folder, check, runs):
    data = changed(segmentation=runs)
    for test in (False, True):
        with pytest.raises(UsageError, match=r"annotation 1 has no mask.*set MASKS to false"):
            check(data, test=test, mask_format="bitmask")
        for own_loader in (True, False):
            line = check(data, test=test, own_loader=own_loader, masks=False)
            assert line.endswith("6 annotations, 2 classes")
    # Detectron2 learns the box.
    register_coco_dataset(NAME, images=str(folder), json=str(folder / "file.json"))
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    mapper = DatasetMapper(cfg, True)
    assert [len(mapper(r)["instances"]) for r in get_detection_dataset_dicts([NAME])] == [2, 2, 2]


def test_compressed_run_lengths_are_taken(check):
    mask = np.asfortranarray(np.eye(40, 60, dtype=np.uint8))
    runs = coco_mask.encode(mask)
    data = changed(segmentation=runs | {"counts": runs["counts"].decode()})
    check(data, mask_format="bitmask")


def test_a_missing_annotation_file_is_named(folder):
    for path, message in ((folder / "none.json", "does not exist"), (folder, "is a folder")):
        register_coco_dataset(NAME, images=str(folder), json=str(path))
        with pytest.raises(UsageError, match=f"{NAME}: its annotation file {path} {message}$"):
            DatasetCatalog.get(NAME)
    register_coco_dataset(NAME, images="x", json="none.json")
    with pytest.raises(UsageError, match=r"relative paths start at \$DETECTRON2_DATASETS"):
        DatasetCatalog.get(NAME)


def test_a_file_without_a_usable_annotation(check):
    data = content()
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    for test in (False, True):
        with pytest.raises(UsageError, match=r"no annotation can be used \(crowd regions: 6\)"):
            check(data, test=test)


@pytest.mark.parametrize("empty", [True, False])
def test_a_test_set_may_have_no_annotations(check, empty):
    data = {**content(), "annotations": []}
    if not empty:
        del data["annotations"]
    assert "predictions are only written" in check(data, test=True)
    with pytest.raises(UsageError, match="annotation"):
        check(data)


def test_masks_have_to_fit_the_model(check):
    data = changed(segmentation=RUNS)
    with pytest.raises(UsageError, match="run lengths, not polygons: set FORMAT to bitmask"):
        check(data)
    check(data, mask_format="bitmask")
    check(data, test=True)
    check(without("annotations", "segmentation"), masks=False)


def test_classes_have_to_fit_the_model(check):
    with pytest.raises(UsageError, match=r"2 categories, .* predicts 80: set CLASSES to 2"):
        check(content(), num_classes=80)
    check(content(), num_classes=None)


def test_a_category_for_the_group_of_all_others_is_named(check):
    data = content()
    data["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
    check(data, num_classes=3)
    with pytest.raises(UsageError, match=r"file \(take things, without an object, off .*3 categ"):
        check(data, num_classes=2)


def test_a_file_of_groups_says_what_to_write(check):
    data = content()
    for entry in data["annotations"]:
        entry["iscrowd"] = 1
    with pytest.raises(UsageError, match=r"crowd regions: 6.: set their 'iscrowd' to 0"):
        check(data)


def test_more_groups_than_objects_are_doubted(check, caplog):
    data = content()
    for entry in data["annotations"][2:]:
        entry["iscrowd"] = 1
    check(data)
    assert "'iscrowd' is 1 for 4 of 6 annotations" in caplog.text


def test_repeated_ids_of_the_files_of_2014_pass(check, folder):
    """COCO's own files of 2014, which Detectron2 lets pass."""
    name = folder / "instances_minival2014.json"
    name.write_text(json.dumps(changed(id=2)))
    options = {"task": task(), "test": True, "max_image_files": 0, "own_loader": False}
    check_coco_dataset(NAME, str(name), None, **options)
    with pytest.raises(UsageError, match="annotation 2\\), which Detectron2's own reader takes"):
        check(changed(id=2), own_loader=False)


def test_an_image_with_two_entries_is_doubted(check, caplog):
    check(with_image(file_name="2.png"))
    assert "1 of 2 images have several entries: 2.png: in each the objects" in caplog.text


ODD_FORMS = {
    "text ids": (with_image(id="1"), "some ids are texts"),
    "sizes": (with_image(height=40.0), "number 0 of 'images' has the height 40.0"),
    "no list of objects": (changed(segmentation=[[]]), "annotation 1"),
    "crowd": (changed(iscrowd=None), "'iscrowd' is null"),
}


@pytest.mark.parametrize("data, message", ODD_FORMS.values(), ids=ODD_FORMS)
def test_what_detectron2s_own_reader_would_take_otherwise(check, data, message):
    """A dataset that ``register_coco_instances`` has registered does not go through ours."""
    check(data, masks=False)
    with pytest.raises(UsageError, match=f"{message}.* otherwise: .* or declare .*DATASETS.COCO"):
        check(data, masks=False, own_loader=False)


def test_two_categories_of_one_name_are_borne_everywhere(check):
    data = content()
    for category in data["categories"]:
        category["name"] = "plate"
    check(data, own_loader=False)


def test_a_missing_file_says_where_it_was_looked_for(folder, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    with pytest.raises(UsageError, match=r"none.json: there is no such file .*=/data"):
        check_coco_dataset(
            NAME, "none.json", str(folder), task=task(), test=True, max_image_files=0
        )
