"""Twin of the YAML file of the same name."""

from ..common.coco_mask_rcnn_r50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.context = dict(name="snl")
model.backbone.bottom_up.inserts = dict(res4=[-2])
train.output_dir = "output/coco/mask_rcnn_r50_fpn_snl_c4_syncbn_1x"
