"""Five non-local blocks, whose keys and values are pooled 2x2."""

from ..common.blocks import five, nl
from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = nl
model.backbone.inserts = five
train.output_dir = "output/kinetics400/nl_slow_only_r50_8x8"
