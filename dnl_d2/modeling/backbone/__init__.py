"""Backbones with context blocks in their residual blocks."""

from dnl_d2.modeling.backbone.build import build_context_resnet
from dnl_d2.modeling.backbone.entries import (
    build_context_resnet_backbone,
    build_context_resnet_fpn_backbone,
    build_context_retinanet_resnet_fpn_backbone,
)
from dnl_d2.modeling.backbone.residual import ContextBasicBlock, ContextBottleneckBlock
from dnl_d2.modeling.backbone.resnet import ContextResNet
from dnl_d2.modeling.backbone.resnet_options import ResNetOptions, expand_inserts

__all__ = [
    "ContextBasicBlock",
    "ContextBottleneckBlock",
    "ContextResNet",
    "ResNetOptions",
    "build_context_resnet",
    "build_context_resnet_backbone",
    "build_context_resnet_fpn_backbone",
    "build_context_retinanet_resnet_fpn_backbone",
    "expand_inserts",
]
