"""Semantic-segmentation heads for :class:`detectron2.modeling.SemanticSegmentor`."""

from dnl_d2.modeling.heads.asymmetric import AsymmetricHead
from dnl_d2.modeling.heads.base import SegmentationHead
from dnl_d2.modeling.heads.context import ContextHead

__all__ = ["AsymmetricHead", "ContextHead", "SegmentationHead"]
