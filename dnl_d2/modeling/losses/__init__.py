"""Losses of the segmentation heads: modules of full-size logits and label maps."""

from dnl_d2.modeling.losses.cross_entropy import CrossEntropyLoss, HardPixels
from dnl_d2.modeling.losses.overlap import DiceLoss, LovaszLoss
from dnl_d2.modeling.losses.segmentation_loss import SegmentationLoss
from dnl_d2.modeling.losses.total import SumOfLosses, build_loss

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "HardPixels",
    "LovaszLoss",
    "SegmentationLoss",
    "SumOfLosses",
    "build_loss",
]
