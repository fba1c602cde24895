"""Twin of the YAML file of the same name."""

from ..common.blocks import gc_in_c3_to_c5
from .mask_rcnn_r50_fpn_syncbn_2x import dataloader, lr_multiplier, model, optimizer, train

gc_in_c3_to_c5(model, ratio=1 / 16)
train.output_dir = "output/coco/mask_rcnn_r50_fpn_gc_r16_c3-c5_syncbn_2x"
