"""Generated pairs of shapes, with a DNL block in the first residual block of res2."""

from .pairs_baseline import dataloader, lr_multiplier, model, optimizer, train

model.backbone.context = dict(name="dnl", temperature=1.0)
model.backbone.inserts = {"res2": [0]}
train.output_dir = "output/pairs/dnl"
