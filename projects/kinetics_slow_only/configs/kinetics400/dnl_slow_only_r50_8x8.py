"""Five disentangled non-local blocks, whose keys and values are pooled 2x2."""

from ..common.blocks import dnl, five
from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dnl
model.backbone.inserts = five
train.output_dir = "output/kinetics400/dnl_slow_only_r50_8x8"
