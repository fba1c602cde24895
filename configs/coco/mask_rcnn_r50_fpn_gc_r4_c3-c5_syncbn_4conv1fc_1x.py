"""Twin of the YAML file of the same name."""

from ..common.blocks import gc_in_c3_to_c5
from ..common.coco_mask_rcnn_r50_fpn_4conv1fc import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

gc_in_c3_to_c5(model, ratio=1 / 4)
train.output_dir = "output/coco/mask_rcnn_r50_fpn_gc_r4_c3-c5_syncbn_4conv1fc_1x"
