"""Twin of the YAML file of the same name."""

from ..common.blocks import gc
from ..common.camvid_r18w32_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.context_block = gc
train.max_iter = 700
train.output_dir = "output/camvid/gc_r18w32-d8_700_camvid-240x320"
