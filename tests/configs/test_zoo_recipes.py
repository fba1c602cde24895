"""The LVIS and Cityscapes recipes are Detectron2's, but for the backbone's context blocks."""

import pathlib

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode

from dnl_d2.engine import load_config
from dnl_d2.layers import GlobalContextBlock
from dnl_d2.modeling.from_config import build_from_config

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = {
    "lvis/mask_rcnn_r50_fpn_gc_r16_c3-c5_1x_lvis-v1": (
        "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        set(),
    ),
    "cityscapes-instance/mask_rcnn_r50_fpn_gc_r16_c3-c5_24k_cityscapes-instance": (
        "Cityscapes/mask_rcnn_R_50_FPN.yaml",
        {"INPUT.MASK_FORMAT", "DATASETS.TRAIN", "DATASETS.TEST"},
    ),
}


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode) and key not in ("CONTEXT", "CONTEXT_STAGES"):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_else_differs_from_the_zoo(name):
    zoo, others = RECIPES[name]
    ours = dict(flat(load_config(str(CONFIGS / f"{name}.yaml"))))
    theirs = dict(flat(model_zoo.get_config(zoo)))
    differs = {key for key in theirs if ours[key] != theirs[key]}
    assert differs == others | {"MODEL.BACKBONE.NAME", "OUTPUT_DIR"}
    assert ours["MODEL.RESNETS.CONTEXT"].NAME == "gc"


@pytest.mark.parametrize("name", RECIPES)
def test_it_builds(name):
    path = str(CONFIGS / f"{name}.yaml")
    model = build_from_config(path, device="meta")
    blocks = [m for m in model.modules() if isinstance(m, GlobalContextBlock)]
    assert len(blocks) == 4 + 6 + 3
    classes = load_config(path).MODEL.ROI_HEADS.NUM_CLASSES
    assert model.roi_heads.box_predictor.cls_score.weight.shape[0] == classes + 1
    assert model.pixel_mean.device == torch.device("meta")
