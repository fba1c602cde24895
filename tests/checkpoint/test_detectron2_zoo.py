"""Weights by name: which address a name stands for, and what is said about wrong ones."""

import logging
import re
import sys

import pytest

from dnl_d2.checkpoint import detectron2_zoo as zoo
from dnl_d2.checkpoint.detectron2_zoo import addresses, resolve_weights
from dnl_d2.engine import run
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, lazy_config, yaml_config
from tests.modeling.detectors import ZOO

MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
ADDRESS = f"detectron2://{MASK_RCNN}/137849600/model_final_f10217.pkl"
MSRA = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


@pytest.fixture
def fresh():
    addresses.cache_clear()
    zoo._spellings.cache_clear()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (f"{MASK_RCNN}.yaml", ADDRESS),
        (f"{MASK_RCNN}.py", ADDRESS),
        (MASK_RCNN, ADDRESS),
        ("mask_rcnn_R_50_FPN_3x", ADDRESS),
        ("mask_rcnn_R_50_FPN_3x.yaml", ADDRESS),
        ("COCO-Keypoints/keypoint_rcnn_R_101_FPN", None),  # there is but one schedule
        ("keypoint_rcnn_R_101_FPN_3x", None),
        ("ImageNetPretrained/MSRA/R-50.pkl", MSRA),
        ("MSRA/R-50", MSRA),
        ("ImageNetPretrained/torchvision/R-50.pkl", MSRA.replace("MSRA", "torchvision")),
        ("FAIR/R-50-GN", "catalog://ImageNetPretrained/FAIR/R-50-GN"),
    ],
)
def test_names(name, address):
    if address is None:
        file = "138363331/model_final_997cc7.pkl"
        address = f"detectron2://COCO-Keypoints/keypoint_rcnn_R_101_FPN_3x/{file}"
    assert resolve_weights(name) == address


def test_addresses_are_detectron2s_own():
    model_zoo = pytest.importorskip("detectron2.model_zoo")  # may need pkg_resources
    names = [name for name in addresses() if "model_" in addresses()[name]]
    assert len(names) > 50
    for name in names:
        path = addresses()[name].removeprefix("detectron2://")
        assert model_zoo.get_checkpoint_url(f"{name}.yaml").endswith(f"/detectron2/{path}")


def test_what_the_zoos_configs_start_from_has_a_name():
    starts = set()
    for path in ZOO.rglob("*.yaml"):
        found = re.findall(
            r"(?:detectron2|catalog)://(ImageNetPretrained/\S+?)[\"']", path.read_text()
        )
        starts |= set(found)
    assert len(starts) >= 6
    for start in starts:
        assert addresses()[start.removesuffix(".pkl")].endswith(f"://{start}")


def test_no_pkg_resources_is_needed(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    for name in [n for n in sys.modules if n.startswith("detectron2.model_zoo")]:
        monkeypatch.delitem(sys.modules, name)
    assert resolve_weights(MASK_RCNN) == ADDRESS


def test_a_local_file_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask_rcnn_R_50_FPN_3x").touch()
    assert resolve_weights("mask_rcnn_R_50_FPN_3x") == "mask_rcnn_R_50_FPN_3x"
    assert resolve_weights(str(tmp_path / "mask_rcnn_R_50_FPN_3x")).startswith(str(tmp_path))


def test_a_file_may_be_given_from_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert resolve_weights("~/w.pth") == str(tmp_path / "w.pth")


@pytest.mark.parametrize("given", ["", ADDRESS, "https://example.org/R-50.pkl?x=1"])
def test_addresses_stay(given):
    assert resolve_weights(given) == given


def test_the_log_says_what_a_name_stands_for(caplog):
    with caplog.at_level(logging.INFO):
        resolve_weights("mask_rcnn_R_50_FPN_3x", "train.init_checkpoint")
    assert f"train.init_checkpoint: mask_rcnn_R_50_FPN_3x of Detectron2's model zoo, {ADDRESS}" in (
        caplog.text
    )


BOTH = "COCO-InstanceSegmentation/{0}, LVISv0.5-InstanceSegmentation/{0}: write one of these"
WRONG = [
    ("mask_rcnn_R_50_FPN_1x", "it may be any of " + BOTH.format("mask_rcnn_R_50_FPN_1x")),
    ("mask_rcnn_R_50_FPN", "it may be any of .*_1x, .*_3x, .*Cityscapes/mask_rcnn_R_50_FPN"),
    ("R-50.pkl", "it may be any of ImageNetPretrained/MSRA/R-50, .*torchvision/R-50"),
    ("mask_rcnn_R_50_FPN_2x.yaml", f"; Detectron2's model zoo has {MASK_RCNN}, "),
    ("mask_rcnn_r50_fpn_3x", f"; Detectron2's model zoo has {MASK_RCNN}, "),
    ("torchvision/R-101.pkl", "model zoo has ImageNetPretrained/torchvision/R-50$"),
    ("output/model_final.pth", "there is no weights file 'output/model_final.pth'$"),
]


@pytest.mark.parametrize(("name", "message"), WRONG)
def test_wrong_names_are_one_clear_line(name, message):
    with pytest.raises(UsageError, match=message) as error:
        resolve_weights(name, "MODEL.WEIGHTS")
    assert str(error.value).startswith("MODEL.WEIGHTS: there is no ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(UsageError, match=r"MODEL.WEIGHTS: '.*' is a folder: name a weights file$"):
        resolve_weights(str(tmp_path))
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(UsageError, match=r"is a folder: .*, such as .*/model_final.pth$"):
        resolve_weights(f"{tmp_path}/")


@pytest.mark.parametrize("eval_only", [False, True])
def test_both_engines_take_names(eval_only, tmp_path):
    message = f"{{}}: there is no weights file 'mask_rcnn_R_50_FPN_2x'; .*{MASK_RCNN}"
    args = arguments(eval_only=eval_only)
    cfg = yaml_config(tmp_path, MODEL__WEIGHTS="mask_rcnn_R_50_FPN_2x")
    with pytest.raises(UsageError, match=message.format("MODEL.WEIGHTS")):
        run(cfg, args)
    cfg = lazy_config(tmp_path, train__init_checkpoint="mask_rcnn_R_50_FPN_2x")
    with pytest.raises(UsageError, match=message.format("train.init_checkpoint")):
        run(cfg, args)
