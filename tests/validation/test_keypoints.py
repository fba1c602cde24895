"""What is found wrong with keypoints before training."""

import json
import logging

import pytest
from detectron2.data import MetadataCatalog

from dnl_d2.data import register_coco_dataset
from dnl_d2.errors import UsageError
from dnl_d2.validation.keypoints import KeypointTask, check_keypoints
from tests.data.coco_form import content

FACE = ["nose", "left_eye", "right_eye"]


def task(**changes):
    values = {
        "count": 3, "count_key": "COUNT", "sigmas": (0.1, 0.1, 0.1), "sigmas_key": "SIGMAS",
        "flip": "horizontal", "flip_key": "FLIP", "flip_indices_key": "INDICES",
    }  # fmt: skip
    return KeypointTask(**(values | changes))


@pytest.fixture
def named(tmp_path):
    """Returns ``named(name, keypoints)``: registers a dataset with these."""

    def register(name, keypoints, **told):
        path = tmp_path / f"{name}.json"
        categories = [{"id": 1, "name": "face", "keypoints": keypoints}]
        path.write_text(json.dumps(content() | {"categories": categories, "annotations": []}))
        register_coco_dataset(name, images=str(tmp_path), json=str(path), **told)

    return register


def test_what_fits_passes(named):
    named("a", FACE)
    named("b", FACE)
    check_keypoints(["a", "b"], ["b"], task(flip_indices=(0, 2, 1)))
    coco = task(count=17, sigmas=(), flip_indices=None)
    both = [f"keypoints_coco_2017_{split}" for split in ("train", "val")]
    check_keypoints(both[:1], both[1:], coco)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": 17}, r"dataset a \(nose, .*\) has 3 keypoints, .* predicts 17: set COUNT to 3"),
        ({"sigmas": ()}, r"SIGMAS is empty \(COCO's 17\), but COUNT is 3: give one above 0 for"),
        ({"sigmas": (0.1,)}, "SIGMAS has 1 numbers, but COUNT is 3"),
        ({"sigmas": (0.1, 0.1, 0.0)}, r"SIGMAS are \[0.1, 0.1, 0.0\]: give numbers above 0"),
        ({"flip": "vertical"}, "FLIP: Detectron2 does not swap keypoints in vertical mirror"),
        ({"flip_indices": (0, 1, 2)}, r"INDICES are \[0, 1, 2\], those of a are \[0, 2, 1\]: set"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(named, changes, message):
    named("a", FACE)
    with pytest.raises(UsageError, match=message) as error:
        check_keypoints(["a"], ["a"], task(**changes))
    assert "\n" not in str(error.value)


def test_names_in_another_order_are_refused(named):
    named("a", FACE)
    named("b", FACE[::-1])
    with pytest.raises(UsageError, match="datasets a and b differ in their keypoints: nose, left"):
        check_keypoints(["a"], ["b"], task())


@pytest.mark.parametrize("keypoints", [["a", "b", "c"], []])
def test_unknown_pairs_matter_only_where_pictures_are_mirrored(named, keypoints):
    named("a", keypoints)
    with pytest.raises(UsageError, match=r"KEYPOINT.*; or do not mirror pictures \(FLIP\)"):
        check_keypoints(["a"], [], task())
    check_keypoints([], ["a"], task())
    check_keypoints(["a"], ["a"], task(flip="none"))
    check_keypoints(["a"], ["a"], task(flip_indices=(1, 0, 2)))


def test_pairs_of_other_names_are_refused(named):
    named("a", FACE, keypoint_flip_map=[["left_ear", "right_ear"]])
    with pytest.raises(
        UsageError, match="a: its keypoint_flip_map names 'left_ear', which is none"
    ):
        check_keypoints(["a"], [], task())


def test_datasets_of_other_loaders_are_asked_for_the_same(monkeypatch):
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog))
    MetadataCatalog.get("other").set(keypoint_names=FACE)
    with pytest.raises(UsageError, match="dataset other: its metadata have no keypoint_flip_map"):
        check_keypoints(["other"], [], task())


def test_tolerances_of_coco_for_other_points_are_told(named, caplog):
    names = [f"p{n}" for n in range(17)]
    named("a", names)
    with caplog.at_level(logging.WARNING):
        check_keypoints([], ["a"], task(count=17, sigmas=()))
    assert "SIGMAS is empty: the keypoints of a, named otherwise than COCO's" in caplog.text
