"""Generated pairs of shapes, with a global context block in the first residual block of res2."""

from .pairs_baseline import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="gc", ratio=0.25)
model.backbone.inserts = {"res2": [0]}
train.output_dir = "output/pairs/gc"
