"""The baseline: no context block."""

from .common import dataloader, lr_multiplier, model, optimizer, train
