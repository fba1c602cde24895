"""Twin of the YAML file of the same name."""

from .mask_rcnn_r50_fpn_syncbn_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.norm = "fixBN"
train.output_dir = "output/coco/mask_rcnn_r50_fpn_fixbn_2x"
