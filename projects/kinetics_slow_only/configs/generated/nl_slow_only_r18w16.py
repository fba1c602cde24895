"""The slow-only network with a context block after the last residual block of res3 and of res4."""

from ..common.blocks import last_of_res3_res4, nl
from ..common.slow_only_r18w16 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = nl
model.backbone.inserts = last_of_res3_res4
train.output_dir = "output/generated_motion/nl_slow_only_r18w16"
