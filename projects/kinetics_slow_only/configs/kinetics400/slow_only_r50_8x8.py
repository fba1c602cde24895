"""The baseline: no context block."""

from ..common.slow_only_r50 import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/kinetics400/slow_only_r50_8x8"
