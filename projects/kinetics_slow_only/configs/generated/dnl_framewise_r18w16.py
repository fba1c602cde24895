"""Context blocks over all frames, but no convolution along time: the order stays unknown."""

from ..common.blocks import dnl, last_of_res3_res4
from ..common.slow_only_r18w16 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.temporal_kernels = (1, 1, 1, 1)
model.backbone.context = dnl
model.backbone.inserts = last_of_res3_res4
train.output_dir = "output/generated_motion/dnl_framewise_r18w16"
