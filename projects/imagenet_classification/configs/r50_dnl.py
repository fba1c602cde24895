"""One disentangled non-local block in res4."""

from .common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="dnl", preset="paper-det")
model.backbone.inserts = {"res4": [-2]}
train.output_dir = "output/imagenet/r50_dnl"
