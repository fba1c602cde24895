"""ResNet-101 with global context blocks, ratio 1/16, in all of res3 to res5."""

from .r101 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="gc", ratio=1 / 16)
model.backbone.inserts = {"res3": "all", "res4": "all", "res5": "all"}
train.output_dir = "output/imagenet/r101_gc_c3-c5"
