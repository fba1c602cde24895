"""Convolutions along time in res4 and res5, no context block."""

from ..common.slow_only_r18w16 import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/generated_motion/slow_only_r18w16"
