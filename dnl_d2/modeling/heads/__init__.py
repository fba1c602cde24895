"""Semantic-segmentation heads for :class:`detectron2.modeling.SemanticSegmentor`."""

from dnl_d2.modeling.heads.asymmetric import AsymmetricHead
from dnl_d2.modeling.heads.context import ContextHead
from dnl_d2.modeling.heads.segmentation_head import SegmentationHead

__all__ = ["AsymmetricHead", "ContextHead", "SegmentationHead"]
