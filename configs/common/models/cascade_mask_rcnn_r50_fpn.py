"""The cascade of mask_rcnn_r50_fpn.py: three box and mask heads."""

from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from dnl_d2.modeling.roi_heads import MeanCascadeROIHeads, MeanMaskHead

from .mask_rcnn_r50_fpn import model

# By stage: deviations of the box targets (place, size), and the least overlap with an object.
STAGES = ((0.1, 0.2, 0.5), (0.05, 0.1, 0.6), (0.033, 0.067, 0.7))

heads = model.roi_heads
heads._target_ = MeanCascadeROIHeads
heads.stage_loss_weights = [1.0, 0.5, 0.25]
heads.pop("proposal_matcher")
heads.proposal_matchers = [
    L(Matcher)(thresholds=[overlap], labels=[0, 1], allow_low_quality_matches=False)
    for _, _, overlap in STAGES
]
heads.box_heads = [heads.pop("box_head")] * 3
heads.box_predictor.cls_agnostic_bbox_reg = True
heads.box_predictor.num_classes = "${...num_classes}"
heads.box_predictors = [heads.pop("box_predictor")] * 3
for predictor, (centre, size, _) in zip(heads.box_predictors, STAGES, strict=True):
    predictor.box2box_transform = L(Box2BoxTransform)(
        weights=(1 / centre, 1 / centre, 1 / size, 1 / size)
    )
heads.mask_head.num_classes = "${....num_classes}"
heads.mask_head = L(MeanMaskHead)(heads=[heads.mask_head] * 3)
