"""Twin of the YAML file of the same name."""

from ..common.coco_mask_rcnn_r50_fpn import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/coco/mask_rcnn_r50_fpn_syncbn_1x"
