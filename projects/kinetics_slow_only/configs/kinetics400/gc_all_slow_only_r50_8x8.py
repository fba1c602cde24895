"""A global context block, r = 4, in every residual block of res3 to res5."""

from ..common.blocks import all_layers, gc
from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = gc
model.backbone.inserts = all_layers
train.output_dir = "output/kinetics400/gc_all_slow_only_r50_8x8"
