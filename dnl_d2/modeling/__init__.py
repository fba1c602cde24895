"""Backbones, heads and the segmentor; importing registers them with Detectron2."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.modeling import anchors, roi_heads  # noqa: F401  (registers)
from dnl_d2.modeling.backbone import build_context_resnet
from dnl_d2.modeling.batches import SameSizeBatches
from dnl_d2.modeling.heads import AsymmetricHead, ContextHead
from dnl_d2.modeling.losses import (
    CrossEntropyLoss,
    DiceLoss,
    HardPixels,
    LovaszLoss,
    SumOfLosses,
)
from dnl_d2.modeling.segmentor import ContextSegmentor

__all__ = [
    "AsymmetricHead",
    "ContextHead",
    "ContextSegmentor",
    "CrossEntropyLoss",
    "DiceLoss",
    "HardPixels",
    "LovaszLoss",
    "SameSizeBatches",
    "SumOfLosses",
    "build_context_resnet",
]
