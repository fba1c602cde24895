"""Configs and backbones for the tests of models."""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling.backbone.resnet import ResNet

from dnl_d2 import add_dnl_config
from dnl_d2.modeling import build_context_resnet
from dnl_d2.modeling.backbone import ContextResNet


def defaults(keys: dict[str, Any] | None = None) -> CfgNode:
    """Detectron2's defaults and ours, with those keys changed."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.merge_from_list([part for pair in (keys or {}).items() for part in pair])
    return cfg


def config(name: str = "build_context_resnet_backbone", **resnet) -> CfgNode:
    """The defaults with that backbone and keys below MODEL.RESNETS."""
    keys = {"MODEL.BACKBONE.NAME": name, "MODEL.BACKBONE.FREEZE_AT": 0, "MODEL.RESNETS.NORM": "BN"}
    return defaults(keys | {f"MODEL.RESNETS.{key}": value for key, value in resnet.items()})


def small_resnet(**options) -> ContextResNet:
    """A ResNet-18 of an eighth of its width, quick to run."""
    small = {"depth": 18, "stem_out_channels": 8, "res2_out_channels": 8}
    return build_context_resnet(**small | options)


def assert_same_features(ours: ContextResNet, theirs: ResNet, **tolerance: float) -> None:
    """The same names of parameters and, with the same values, the same features."""
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        expected, got = theirs.eval()(x), ours.eval()(x)
    assert got.pop("input") is x
    assert list(got) == list(expected)
    for name, feature in expected.items():
        torch.testing.assert_close(got[name], feature, **tolerance)


# Of a detector: none that rounding could cross.
NO_THRESHOLDS = {
    "MODEL__RPN__PRE_NMS_TOPK_TEST": 5000,
    "MODEL__RPN__POST_NMS_TOPK_TEST": 5000,
    "MODEL__RPN__NMS_THRESH": 1.0,
    "MODEL__ROI_HEADS__NMS_THRESH_TEST": 1.0,
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
}
