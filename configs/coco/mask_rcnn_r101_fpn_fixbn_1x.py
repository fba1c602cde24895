"""Twin of the YAML file of the same name."""

from .mask_rcnn_r101_fpn_syncbn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.norm = "fixBN"
train.output_dir = "output/coco/mask_rcnn_r101_fpn_fixbn_1x"
