"""One global context block, ratio 1/16, in res4."""

from .common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="gc", ratio=1 / 16)
model.backbone.inserts = {"res4": [-2]}
train.output_dir = "output/imagenet/r50_gc"
