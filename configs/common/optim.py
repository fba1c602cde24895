"""The published optimiser and schedule: SGD, poly from 0.01 down to 1e-4."""

import torch
from detectron2.config import LazyCall as L

from dnl_d2.engine import PolyParamScheduler, optimizer_params

optimizer = L(torch.optim.SGD)(
    # no_decay: regular expressions; where one is found in a parameter's name, it does not decay.
    params=L(optimizer_params)(weight_decay_norm="${..weight_decay}", no_decay=[]),
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
)
lr_multiplier = L(PolyParamScheduler)(power=0.9, end_value=0.01)  # 1e-4 / 0.01

# For training from scratch in a short time.
adamw = L(torch.optim.AdamW)(
    params=L(optimizer_params)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0, no_decay=[]
    ),
    lr=3e-3,
    weight_decay=1e-3,
)
