"""Backbones and heads; importing registers them with Detectron2."""

from dnl_d2.modeling.backbone import build_context_resnet
from dnl_d2.modeling.heads import AsymmetricHead, ContextHead
from dnl_d2.modeling.losses import CrossEntropyLoss

__all__ = ["AsymmetricHead", "ContextHead", "CrossEntropyLoss", "build_context_resnet"]
