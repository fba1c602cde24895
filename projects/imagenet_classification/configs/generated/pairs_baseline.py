"""Generated pairs of shapes: a narrow ResNet-18 up to res2, which sees 43 of 112 pixels at once."""

import torch
from detectron2.config import LazyCall as L

from dnl_d2.engine import optimizer_params

from ..common import dataloader, lr_multiplier, model, train

model.backbone.update(
    depth=18,
    stride_in_1x1=False,
    stem_out_channels=32,
    res2_out_channels=32,
    out_features=["res2"],
)
model.feature = "res2"
model.num_classes = 2
model.label_smoothing = 0.0

for split in ("train", "test"):
    dataloader[split].num_workers = 1
    dataloader[split].mapper.size = 112
dataloader.train.dataset.update(names="pairs_train", folder="pairs/train")
dataloader.train.mapper.scale = (1.0, 1.0)  # whole: shapes must not be cut off
dataloader.train.total_batch_size = 32
dataloader.test.dataset.update(names="pairs_val", folder="pairs/val")
dataloader.test.mapper.resize = 112

optimizer = L(torch.optim.AdamW)(
    params=L(optimizer_params)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", weight_decay_norm=0.0, no_decay=[]
    ),
    lr=3e-3,
    weight_decay=1e-3,
)
lr_multiplier.iterations = 50
train.max_iter = 600
train.seed = 1
train.checkpointer.period = 300
train.eval_period = 100
train.log_period = 20
train.output_dir = "output/pairs/baseline"
