"""Twin of the YAML file of the same name."""

from .mask_rcnn_r50_fpn_fixbn_2x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.context = dict(name="gc", ratio=1 / 4)
model.backbone.bottom_up.inserts = dict(res3="all", res4="all", res5="all")
train.output_dir = "output/coco/mask_rcnn_r50_fpn_gc_r4_c3-c5_fixbn_2x"
