"""CamVid on a small machine, from scratch; twin of camvid_r18w32-d8.yaml."""

from detectron2.config import LazyCall as L

from dnl_d2.engine import warmed_up

from .data.sem_seg import dataloader
from .models.segmentor_r18w32_d8 import model
from .optim import lr_multiplier, optimizer
from .train import train

model.sem_seg_head.num_classes = 11
model.pad_size = "${dataloader.train.mapper.augmentations.crop_size}"
train.cudnn_benchmark = True  # crops have one size

dataloader.train.dataset.names = "camvid_sem_seg_train"
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 1
dataloader.train.mapper.dataset_ignore_label = 11
dataloader.train.mapper.augmentations.base_size = (480, 360)
dataloader.train.mapper.augmentations.ratio_range = (0.5, 1.5)
dataloader.train.mapper.augmentations.crop_size = (240, 320)
dataloader.test.dataset.names = "camvid_sem_seg_val"
dataloader.test.num_workers = 1

optimizer.lr = 0.02
lr_multiplier = L(warmed_up)(
    scheduler=lr_multiplier, factor=0.001, iterations=100, max_iter="${train.max_iter}"
)

train.max_iter = 4000
train.seed = 1
train.amp.enabled = True
train.checkpointer.period = 500
train.eval_period = 2000
