"""No convolution along time: what the frames show, without their order."""

from ..common.slow_only_r18w16 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.temporal_kernels = (1, 1, 1, 1)
train.output_dir = "output/generated_motion/framewise_r18w16"
