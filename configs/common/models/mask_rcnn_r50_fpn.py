"""Detectron2's Mask R-CNN with the conventions of MMDetection 1.x, and room for context blocks."""

from detectron2.config import LazyCall as L

from dnl_d2.config.loading import zoo_config
from dnl_d2.modeling.anchors import LegacyAnchorGenerator

from .context_fpn import backbone

model = zoo_config("common/models/mask_rcnn_fpn.py").model
model.backbone = backbone
model.backbone.bottom_up.stride_in_1x1 = False
model.backbone.bottom_up.norm = "SyncBN"
model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]
model.input_format = "RGB"

model.proposal_generator.anchor_generator = L(LegacyAnchorGenerator)(
    sizes=[[32], [64], [128], [256], [512]],
    aspect_ratios=[[0.5, 1.0, 2.0]],
    strides=[4, 8, 16, 32, 64],
)
model.proposal_generator.anchor_boundary_thresh = 0
model.proposal_generator.smooth_l1_beta = 1 / 9
model.proposal_generator.post_nms_topk = (2000, 1000)

model.roi_heads.box_predictor.smooth_l1_beta = 1.0
for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
    pooler.sampling_ratio = 2
    pooler.pooler_type = "ROIAlign"
