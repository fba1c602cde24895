"""A narrow slow-only ResNet-18 on generated motion, from scratch, for minutes on a CPU core."""

import torch
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import CosineParamScheduler

from dnl_d2.engine import optimizer_params, warmed_up

from .data import dataloader
from .slow_only_r50 import model
from .train import train

model.backbone.depth = 18
model.backbone.stem_out_channels = 16
model.backbone.res2_out_channels = 16
model.num_classes = 4
model.dropout = 0.0

dataloader.train.dataset.names = "generated_motion_train"
dataloader.train.mapper.stride = 2
dataloader.train.mapper.rate = 16
dataloader.train.mapper.short_side = (64, 64)
dataloader.train.mapper.crop_size = 64
dataloader.train.mapper.flip = False  # left would be right
dataloader.train.total_batch_size = 16
dataloader.train.num_workers = 1
dataloader.test.dataset.names = "generated_motion_val"
dataloader.test.mapper.short_side = 64
dataloader.test.mapper.crop_size = 64
dataloader.test.mapper.num_clips = 1
dataloader.test.mapper.num_crops = 1
dataloader.test.num_workers = 0

optimizer = L(torch.optim.AdamW)(
    params=L(optimizer_params)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0
    ),
    lr=5e-4,
    weight_decay=0.02,
)
lr_multiplier = L(warmed_up)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.01),
    factor=0.02,
    iterations=30,
    max_iter="${train.max_iter}",
)
train.max_iter = 300
train.seed = 1
train.eval_period = 100
train.checkpointer = dict(period=100)
