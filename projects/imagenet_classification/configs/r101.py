"""ResNet-101 without a context block."""

from .common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "output/imagenet/r101"
