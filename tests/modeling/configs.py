"""Configs for the tests of models."""

from detectron2.config import CfgNode, get_cfg

from dnl_d2 import add_dnl_config


def config(name: str = "build_context_resnet_backbone", **resnet) -> CfgNode:
    """Detectron2's defaults with that backbone and keys of MODEL.RESNETS."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    for key, value in resnet.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg
