"""One non-local block in res4."""

from .common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="nl")
model.backbone.inserts = {"res4": [-2]}
train.output_dir = "output/imagenet/r50_nl"
