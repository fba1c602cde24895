"""The baseline of the demo: no context block."""

from ..common.generated_r18w32 import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/generated/fcn_r18w32_800_generated-192x192"
