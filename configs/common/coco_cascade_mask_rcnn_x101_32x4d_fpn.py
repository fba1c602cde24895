"""Twin of coco_cascade_mask_rcnn_x101-32x4d_fpn.yaml."""

from .coco_mask_rcnn_x101_32x4d_fpn import dataloader, lr_multiplier, optimizer, train
from .models.cascade_mask_rcnn_r50_fpn import model

model.backbone.bottom_up.update(depth=101, num_groups=32, width_per_group=4)
