"""Slow-only ResNet-50 on Kinetics-400, 8 frames of 64: what the recipes of kinetics400/ share.

Schedule and rates are those with which mmaction2 trains slow-only networks from weights of images:
150 epochs of 128 clips, 10 of them warm-up, steps after 90 and 130.
"""

import torch
from detectron2.config import LazyCall as L

from dnl_d2.engine import multi_step, optimizer_params, warmed_up
from dnl_d2_kinetics import SlowOnlyResNet, VideoClassifier

from .data import dataloader
from .train import train

model = L(VideoClassifier)(
    backbone=L(SlowOnlyResNet)(
        depth=50,
        temporal_kernels=(1, 1, 3, 3),
        norm="SyncBN",
        context=None,
        inserts={},
    ),
    num_classes=400,
    dropout=0.5,
)
dataloader.train.dataset.names = "kinetics400_train"
dataloader.test.dataset.names = "kinetics400_val"

optimizer = L(torch.optim.SGD)(
    params=L(optimizer_params)(weight_decay_norm="${..weight_decay}"),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
# An epoch of the 240,436 videos of the list is 1878 iterations.
lr_multiplier = L(warmed_up)(
    scheduler=L(multi_step)(milestones=[169000, 244000], max_iter="${train.max_iter}"),
    factor=0.1,
    iterations=18780,
    max_iter="${train.max_iter}",
)
train.max_iter = 281700
train.reference_batch_size = 128
train.amp = dict(enabled=True)
train.clip_norm = 40.0
train.checkpointer = dict(period=9390)
train.eval_period = 18780
