"""RoI heads that Detectron2 does not have; importing registers them."""

from dnl_d2.modeling.roi_heads.cascade import MeanCascadeROIHeads, MeanMaskHead

__all__ = ["MeanCascadeROIHeads", "MeanMaskHead"]
