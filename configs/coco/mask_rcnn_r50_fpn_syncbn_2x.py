"""Twin of the YAML file of the same name."""

from ..common.coco_mask_rcnn_r50_fpn import dataloader, lr_multiplier, model, optimizer, train

lr_multiplier.scheduler.milestones = [120000, 160000]
train.max_iter = 180000
train.output_dir = "output/coco/mask_rcnn_r50_fpn_syncbn_2x"
