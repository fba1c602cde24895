"""The baseline with a rate that falls to a tenth every 30 of 90 epochs."""

from detectron2.config import LazyCall as L

from dnl_d2.engine import multi_step

from .common import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 450000
lr_multiplier.scheduler = L(multi_step)(milestones=[150000, 300000], max_iter="${train.max_iter}")
train.output_dir = "output/imagenet/r50_step"
