"""Five simplified non-local blocks."""

from ..common.blocks import five, snl
from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = snl
model.backbone.inserts = five
train.output_dir = "output/kinetics400/snl_slow_only_r50_8x8"
