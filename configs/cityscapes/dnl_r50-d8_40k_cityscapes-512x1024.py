"""Twin of the YAML file of the same name."""

from ..common.blocks import dnl
from ..common.data.sem_seg import dataloader
from ..common.models.segmentor_r50_d8 import model
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train

model.sem_seg_head.context_block = dnl
dataloader.train.dataset.names = "cityscapes_fine_sem_seg_train"
dataloader.test.dataset.names = "cityscapes_fine_sem_seg_val"
train.output_dir = "output/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024"
