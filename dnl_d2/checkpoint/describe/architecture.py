"""Telling from weights which model they belong to, as the YAML keys that build it."""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

import dnl_d2.modeling  # noqa: F401  (registers what the models are built from)
from dnl_d2.checkpoint.describe.backbone import backbone_settings
from dnl_d2.checkpoint.describe.detector import detector_settings
from dnl_d2.checkpoint.describe.parameters import Keys, Settings
from dnl_d2.checkpoint.describe.segmentor import head_settings
from dnl_d2.checkpoint.keymap import State
from dnl_d2.config.keys import add_dnl_config
from dnl_d2.errors import UsageError, building


def infer_settings(state: State) -> Settings:
    """The YAML keys of the model that weights of ours belong to.

    What no parameter shows (dilation, corners of the resize, temperature; anchors but for their
    number, pooling, the FPN levels that heads read) is left at what the published models of that
    kind have.

    Args:
        state: parameters with this library's names; a bare backbone will do.

    Raises:
        UsageError: there is no ResNet in it, or it has an unknown number of blocks.
    """
    keys = Keys(state)
    settings = backbone_settings(keys)
    if keys.has("sem_seg_head.predictor.weight"):
        settings |= {"MODEL.META_ARCHITECTURE": "ContextSegmentor", "INPUT.MIN_SIZE_TEST": 0}
        settings |= head_settings(keys)
        settings |= {"MODEL.RESNETS.OUTPUT_STRIDE": 8}
    elif keys.has("roi_heads."):
        settings |= {"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"} | detector_settings(keys)
    return settings


def describe(state: State) -> str:
    """The model of some weights in words, also where there is no telling."""
    try:
        return title(infer_settings(state))
    except UsageError as error:
        return f"an unknown model ({error})"


def title(settings: Settings) -> str:
    """A model in words, such as ``ResNet-50 (v1c stem), DNL head, 19 classes``."""
    get = settings.get
    kind = "ResNeXt" if get("MODEL.RESNETS.NUM_GROUPS", 1) > 1 else "ResNet"
    words = [
        f"{kind}-{settings['MODEL.RESNETS.DEPTH']} ({settings['MODEL.RESNETS.STEM_TYPE']} stem)"
    ]
    inserted = get("MODEL.RESNETS.CONTEXT.NAME")
    if inserted:
        words.append(f"{inserted.upper()} blocks in the backbone")
    if get("MODEL.SEM_SEG_HEAD.NAME") == "AsymmetricHead":
        words.append("ANN head")
    elif "MODEL.SEM_SEG_HEAD.NAME" in settings:
        words.append(f"{get('MODEL.SEM_SEG_HEAD.CONTEXT.NAME', 'FCN').upper()} head")
    if "MODEL.ROI_HEADS.NAME" in settings:
        cascade = "Cascade " if "Cascade" in settings["MODEL.ROI_HEADS.NAME"] else ""
        words.append(f"{cascade}{'Mask' if get('MODEL.MASK_ON') else 'Faster'} R-CNN")
    classes = get("MODEL.SEM_SEG_HEAD.NUM_CLASSES", get("MODEL.ROI_HEADS.NUM_CLASSES"))
    if classes is not None:
        words.append(f"{classes} classes")
    return ", ".join(words)


def build_config(settings: Settings) -> CfgNode:
    """Detectron2's defaults with this library's keys and ``settings``."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def expected_parameters(settings: Settings) -> dict[str, Tensor]:
    """Names and shapes of a model's parameters and buffers, without memory for them."""
    cfg = build_config(settings)
    cfg.MODEL.DEVICE = "meta"
    with building("the model that the weights seem to be of"), torch.device("meta"):
        if "MODEL.META_ARCHITECTURE" in settings:
            return build_model(cfg).state_dict()
        backbone = build_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    return {f"backbone.{key}": value for key, value in backbone.items()}


def nested(settings: Settings) -> dict[str, Any]:
    """``{"A.B": 1}`` -> ``{"A": {"B": 1}}``, to be written as YAML."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
