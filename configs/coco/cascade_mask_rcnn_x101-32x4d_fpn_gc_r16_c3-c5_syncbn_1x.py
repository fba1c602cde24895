"""Twin of the YAML file of the same name."""

from ..common.blocks import gc_in_c3_to_c5
from ..common.coco_cascade_mask_rcnn_x101_32x4d_fpn import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

gc_in_c3_to_c5(model, ratio=1 / 16)
train.output_dir = "output/coco/cascade_mask_rcnn_x101-32x4d_fpn_gc_r16_c3-c5_syncbn_1x"
