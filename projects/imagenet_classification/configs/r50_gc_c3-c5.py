"""Global context blocks, ratio 1/16, in all of res3 to res5."""

from .common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="gc", ratio=1 / 16)
model.backbone.inserts = {"res3": "all", "res4": "all", "res5": "all"}
train.output_dir = "output/imagenet/r50_gc_c3-c5"
