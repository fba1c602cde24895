"""Recipes and models by name."""

import pytest
import torch
from detectron2.config import CfgNode
from omegaconf import DictConfig

from dnl_d2 import model_zoo
from dnl_d2.checkpoint import convert_back, get_source
from dnl_d2.errors import UsageError

DNL = "cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"
SMALL = "camvid/dnl_r18w32-d8_4k_camvid-240x320"
LAZY_ONLY = "generated/dnl_r18w32_800_generated-192x192"


def test_every_recipe_is_listed_once(root):
    files = [f for end in ("yaml", "py") for f in root.glob(f"configs/*/*.{end}")]
    expected = {f"{f.parent.name}/{f.stem}" for f in files if f.parent.name != "common"}
    assert model_zoo.list() == sorted(expected) and len(expected) > 100


def test_a_pattern_picks_recipes():
    assert model_zoo.list("cityscapes/dnl_r50-d8_40k_*") == [DNL, f"{DNL[:-8]}769x769"]
    assert model_zoo.list("dnl_r50-d8_40k_*") == model_zoo.list("*/dnl_r50-d8_40k_*") != []
    assert model_zoo.list("nothing*") == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (DNL, f"{DNL}.yaml"),
        (f"{DNL}.yaml", f"{DNL}.yaml"),
        (f"{DNL}.py", f"{DNL}.py"),
        (DNL.split("/")[1], f"{DNL}.yaml"),
        (f"{DNL.split('/')[1]}.py", f"{DNL}.py"),
        (LAZY_ONLY, f"{LAZY_ONLY}.py"),
    ],
)
def test_forms_of_a_name(name, file, root):
    assert model_zoo.get_config_file(name) == str(root / "configs" / file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cityscapes/dnl_r50_d8_40k_cityscapes-512x1024", f"did you mean '{DNL}'?"),
        ("dnl_r50-d8_40k_cityscapes-512x1204", f"did you mean '{DNL}'?"),
        ("dnl_r50-d8_4xb2-40k_cityscapes-512x1024", f"did you mean '{DNL}'?"),
        ("unlike any", "list"),
        (f"{LAZY_ONLY}.yaml", f"but {LAZY_ONLY}.py"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", "detectron2.model_zoo"),
        ("mask_rcnn_R_50_FPN_3x", "detectron2.model_zoo"),
        ("DNL_R50-D8_40k_Cityscapes-512x1024", f"did you mean '{DNL}'?"),
        ("common/train.py", "there is no recipe 'common/train'"),
    ],
)
def test_a_wrong_name_says_what_to_do(name, said):
    with pytest.raises(UsageError) as error:
        model_zoo.get_config(name)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_bare_name_of_two_recipes_is_refused(monkeypatch, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.yaml").write_text("{}")
    recipes = {"one/same": {".yaml": tmp_path}, "two/same": {".yaml": tmp_path}}
    monkeypatch.setattr("dnl_d2.model_zoo.recipes._recipes", lambda: recipes)
    with pytest.raises(UsageError, match="one/same or two/same"):
        model_zoo.get_config_file("same")


def test_kinds_of_configs():
    cfg, lazy = model_zoo.get_config(DNL), model_zoo.get_config(f"{DNL}.py")
    assert isinstance(cfg, CfgNode) and cfg.MODEL.SEM_SEG_HEAD.CONTEXT.NAME == "dnl"
    assert isinstance(lazy, DictConfig) and lazy.train.max_iter == cfg.SOLVER.MAX_ITER == 40000


@pytest.mark.parametrize("ending", ["", ".py"])
def test_model_with_weights_of_either_form(ending, tmp_path):
    torch.manual_seed(0)
    first = model_zoo.get_model(SMALL + ending, device="cpu")
    own, public = str(tmp_path / "own.pth"), str(tmp_path / "public.pth")
    torch.save({"model": first.state_dict()}, own)
    translated = convert_back(first.state_dict(), get_source("mmseg")).state
    torch.save({"state_dict": translated}, public)
    for weights in (own, public):
        model = model_zoo.get_model(SMALL + ending, weights, device="cpu")
        assert not any(module.training for module in model.modules())
        for key, value in first.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0, msg=key)


def test_model_without_memory():
    model = model_zoo.get_model(DNL, device="meta")
    assert {p.device.type for p in model.parameters()} == {"meta"} and not model.training


def test_weights_of_another_model_are_refused(tmp_path):
    weights = str(tmp_path / "fcn.pth")
    fcn = model_zoo.get_model("camvid/fcn_r18w32-d8_4k_camvid-240x320", device="cpu")
    torch.save({"model": fcn.state_dict()}, weights)
    with pytest.raises(UsageError, match="missing"):
        model_zoo.get_model(SMALL, weights, device="cpu")
    with pytest.raises(UsageError, match="nowhere"):
        model_zoo.get_model(SMALL, str(tmp_path / "nowhere.pth"), device="cpu")


@pytest.mark.parametrize("name", [None, 3, b"x"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UsageError, match="is no name of a recipe"):
        model_zoo.get_config(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", 0, "nonsense", ""])
def test_devices_that_are_not_there_are_named(device):
    with pytest.raises(UsageError, match=r"model zoo: .*device"):
        model_zoo.get_model("cityscapes/dnl_r50-d8_40k_cityscapes-512x1024", device=device)
