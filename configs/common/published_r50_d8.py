"""What the rows of mmsegmentation's model zoo share; twin of published_r50-d8.yaml."""

from .data.sem_seg import dataloader
from .models.segmentor_r50_d8 import model
from .optim import lr_multiplier, optimizer
from .train import train

model.sem_seg_head.loss.average = "all"
model.sem_seg_head.auxiliary.loss.average = "all"
model.pad_size = "${dataloader.train.mapper.augmentations.crop_size}"
train.cudnn_benchmark = True  # crops have one size
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/resnet50_v1c-2cccc1ad.pth"
)
