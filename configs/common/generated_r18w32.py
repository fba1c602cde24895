"""The generated dataset with a narrow ResNet-18 that ends at res3, for minutes on a CPU."""

from detectron2.config import LazyCall as L

from dnl_d2.engine import warmed_up

from .data.sem_seg import dataloader
from .models.segmentor_r50_d8 import model
from .optim import adamw as optimizer
from .optim import lr_multiplier
from .train import train

model.backbone.depth = 18
model.backbone.stem = "basic"
model.backbone.stem_out_channels = 16
model.backbone.res2_out_channels = 32
model.backbone.output_stride = 32  # the stride at res3 is 8
model.backbone.out_features = ["res3"]
model.sem_seg_head.input_shape = dict(res3=model.sem_seg_head.input_shape.res5)
model.sem_seg_head.input_shape.res3.channels = 64
model.sem_seg_head.in_features = ["res3"]
model.sem_seg_head.channels = 64
model.sem_seg_head.num_classes = 8
model.sem_seg_head.auxiliary = None

dataloader.train.dataset.names = "generated_sem_seg_train"
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 1
dataloader.train.mapper.augmentations.base_size = None
dataloader.train.mapper.augmentations.ratio_range = (1.0, 1.0)
dataloader.train.mapper.augmentations.crop_size = None
dataloader.train.mapper.augmentations.photometric = False
dataloader.test.dataset.names = "generated_sem_seg_val"
dataloader.test.num_workers = 0

lr_multiplier = L(warmed_up)(
    scheduler=lr_multiplier, factor=0.02, iterations=50, max_iter="${train.max_iter}"
)

train.max_iter = 800
train.seed = 1
train.eval_period = 0
train.checkpointer.period = 400
