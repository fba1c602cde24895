"""Keypoints of own COCO datasets: what the file tells, what a user tells, what names tell."""

import json

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices

from dnl_d2.data import register_coco_dataset
from dnl_d2.data.datasets.configured import register_configured
from dnl_d2.data.datasets.keypoints import UnknownKeypoints, flip_map_of
from dnl_d2.errors import UsageError
from tests.data.coco_form import NAME, content

FACE = ["nose", "left_eye", "right_eye"]


@pytest.fixture
def register(tmp_path):
    """Returns ``register(*categories, **told)``: the metadata of a file with these categories."""

    def make(*categories, **told):
        path = tmp_path / "file.json"
        entries = [{"id": n, "name": f"c{n}"} | each for n, each in enumerate(categories, start=1)]
        path.write_text(json.dumps(content() | {"categories": entries, "annotations": []}))
        register_coco_dataset(NAME, images=str(tmp_path), json=str(path), **told)
        return MetadataCatalog.get(NAME)

    return make


def test_the_file_tells_names_and_skeleton_and_the_names_tell_the_pairs(register):
    meta = register({"keypoints": FACE, "skeleton": [[1, 2], [1, 3]]}, {})
    assert meta.keypoint_names == FACE
    assert meta.keypoint_flip_map == [("left_eye", "right_eye")]
    assert [rule[:2] for rule in meta.keypoint_connection_rules] == [
        ("nose", "left_eye"), ("nose", "right_eye"),
    ]  # fmt: skip
    assert all(0 <= part <= 255 for rule in meta.keypoint_connection_rules for part in rule[2])
    assert create_keypoint_hflip_indices(NAME) == [0, 2, 1]


def test_a_file_that_changes_is_read_again(register):
    assert register({"keypoints": FACE}).keypoint_names == FACE
    assert register({"keypoints": FACE[1:]}).keypoint_names == FACE[1:]


def test_what_is_told_goes_first(register):
    meta = register(
        {"keypoints": ["a", "b", "c"], "skeleton": [[1, 2]]},
        keypoints=["tl", "tr", "tip"],
        keypoint_flip_map=[["tl", "tr"]],
        skeleton=[["tip", "tl"]],
    )
    assert meta.keypoint_names == ["tl", "tr", "tip"]
    assert create_keypoint_hflip_indices(NAME) == [1, 0, 2]
    assert meta.keypoint_connection_rules[0][:2] == ("tip", "tl")


def test_metadata_that_are_set_go_first_too(register):
    meta = register({"keypoints": ["a", "b", "c"]})
    meta.set(keypoint_names=FACE, keypoint_flip_map=[("left_eye", "right_eye")])
    assert create_keypoint_hflip_indices(NAME) == [0, 2, 1]


def test_objects_without_keypoints_get_unmarked_ones(folder):
    data = content()
    data["annotations"][0]["keypoints"] = [6, 7, 2, 8, 9, 1]
    (folder / "file.json").write_text(json.dumps(data))
    register_coco_dataset(NAME, images=str(folder), json=str(folder / "file.json"))
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (40,), "none"
    mapper = DatasetMapper(cfg, True, use_keypoint=True)
    found = [mapper(record)["instances"].gt_keypoints.tensor for record in DatasetCatalog.get(NAME)]
    assert [tuple(points.shape) for points in found] == [(2, 2, 3)] * 3
    assert sum((points[..., 2] > 0).sum().item() for points in found) == 2


def test_keypoints_of_several_lengths_stand_in_no_box_detectors_way(folder):
    data = content()
    points = [6.5, 7.5, 2], [6.5, 7.5, 2, 8.5, 9.5, 1]
    for entry, told in zip(data["annotations"], points, strict=False):
        entry["keypoints"] = told
    (folder / "file.json").write_text(json.dumps(data))
    register_coco_dataset(NAME, images=str(folder), json=str(folder / "file.json"))
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN = (40,)
    records = DatasetCatalog.get(NAME)
    found = [entry.get("keypoints") for record in records for entry in record["annotations"]]
    assert sorted(len(told) for told in found if told) == [3, 6]
    mapper = DatasetMapper(cfg, True)
    assert [len(mapper(record)["instances"]) for record in records] == [2, 2, 2]


def test_a_config_tells_them_too(register):
    path = register({}).json_file
    entry = {"NAME": "own", "IMAGES": "x", "JSON": path, "KEYPOINTS": ["a", "b"]}
    folders_and_coco = {"FOLDERS": [], "COCO": [entry | {"KEYPOINT_FLIP_MAP": []}]}
    register_configured(folders_and_coco)
    assert create_keypoint_hflip_indices("own") == [0, 1]


@pytest.mark.parametrize(
    "categories, message",
    [
        ([{}], "'keypoints' of .*file.json are missing: give names by KEYPOINTS of its entry"),
        ([{"keypoints": FACE}, {"keypoints": FACE[1:]}], "differ between the categories c1, c2"),
        ([{"keypoints": ["a", "a"]}], "give each point a name of its own"),
        ([{"keypoints": "nose"}], "are names, not 'nose'"),
    ],
)
def test_names_that_the_file_does_not_tell_are_not_there(register, categories, message):
    meta = register(*categories)
    assert meta.get("keypoint_names") is None and not hasattr(meta, "keypoint_names")
    with pytest.raises(UsageError, match=message) as error:
        create_keypoint_hflip_indices(NAME)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_so(tmp_path):
    register_coco_dataset(NAME, images="x", json=str(tmp_path / "gone.json"))
    with pytest.raises(UnknownKeypoints, match=r"gone\.json"):
        _ = MetadataCatalog.get(NAME).keypoint_names


def test_pairs_that_names_do_not_tell_are_asked_for(register):
    meta = register({"keypoints": ["tl", "tr"]})
    with pytest.raises(UsageError, match=r"\(tl, tr\) do not tell .* by KEYPOINT_FLIP_MAP of its"):
        create_keypoint_hflip_indices(NAME)
    assert meta.get("keypoint_flip_map", ()) == ()


@pytest.mark.parametrize("skeleton", [[[0, 1]], [[1, 4]], [[1]], ["ab"], 3])
def test_a_skeleton_that_cannot_be_meant_is_not_drawn(register, skeleton):
    meta = register({"keypoints": FACE, "skeleton": skeleton})
    assert meta.get("keypoint_connection_rules") is None


@pytest.mark.parametrize(
    "names, pairs",
    [
        (["left_eye", "right_eye"], [("left_eye", "right_eye")]),
        (["eye-R", "eye-L"], [("eye-R", "eye-L")]),
        (["LeftEar", "nose", "RightEar"], [("LeftEar", "RightEar")]),
        (["RIGHT HIP", "LEFT HIP"], [("RIGHT HIP", "LEFT HIP")]),
        (["l_ankle", "r_ankle", "pelvis"], [("l_ankle", "r_ankle")]),
        (["tip"], []),
        (["left_eye", "nose"], None),  # no counterpart
        (["tl", "tr"], None),
        (["1", "2", "3"], None),
        (["head", "tail", "bright spot"], None),
    ],
)
def test_pairs_by_names(names, pairs):
    assert flip_map_of(names) == pairs


@pytest.mark.parametrize(
    "told, message",
    [
        ({"keypoints": ["a", "a"]}, "keypoints are .*: give each point a name of its own"),
        ({"keypoints": "ab"}, "keypoints are names, not 'ab'"),
        ({"keypoint_flip_map": ["ab"]}, "keypoint_flip_map is a list of pairs of names"),
        ({"keypoint_flip_map": [["a", "a"]]}, "keypoint_flip_map is a list of pairs of names"),
        (
            {"keypoints": ["a", "b"], "keypoint_flip_map": [["a", "c"]]},
            ".* names 'c', which is none",
        ),
        ({"keypoint_flip_map": [["a", "b"], ["b", "c"]]}, ".* has a name in two pairs"),
        ({"skeleton": [[1, 2]]}, "skeleton is a list of pairs of names"),
    ],
)
def test_what_cannot_be_meant_is_refused(register, told, message):
    with pytest.raises(UsageError, match=f"dataset {NAME}: {message}"):
        register({}, **told)
