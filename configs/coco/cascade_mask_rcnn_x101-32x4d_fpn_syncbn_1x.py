"""Twin of the YAML file of the same name."""

from ..common.coco_cascade_mask_rcnn_x101_32x4d_fpn import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

train.output_dir = "output/coco/cascade_mask_rcnn_x101-32x4d_fpn_syncbn_1x"
