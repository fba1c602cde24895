"""Twin of the YAML file of the same name."""

from ..common.coco_cascade_mask_rcnn_x101_32x4d_fpn import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.deform_on = ["res3", "res4", "res5"]
train.output_dir = "output/coco/cascade_mask_rcnn_x101-32x4d_fpn_dconv_c3-c5_syncbn_1x"
