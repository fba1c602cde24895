"""Twin of the YAML file of the same name."""

from .mask_rcnn_r50_fpn_dnl_c4_syncbn_4conv1fc_1x import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.inserts = dict(res4=[-2], res5=[-2, -1, 0])
train.output_dir = "output/coco/mask_rcnn_r50_fpn_dnl_c4-c5_syncbn_4conv1fc_1x"
