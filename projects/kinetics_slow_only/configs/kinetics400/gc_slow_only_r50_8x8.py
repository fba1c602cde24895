"""Five global context blocks, r = 4."""

from ..common.blocks import five, gc
from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = gc
model.backbone.inserts = five
train.output_dir = "output/kinetics400/gc_slow_only_r50_8x8"
