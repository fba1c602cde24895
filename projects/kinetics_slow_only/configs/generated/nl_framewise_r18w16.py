"""Context blocks over all frames, but no convolution along time: the order stays unknown."""

from ..common.blocks import last_of_res3_res4, nl
from ..common.slow_only_r18w16 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.temporal_kernels = (1, 1, 1, 1)
model.backbone.context = nl
model.backbone.inserts = last_of_res3_res4
train.output_dir = "output/generated_motion/nl_framewise_r18w16"
