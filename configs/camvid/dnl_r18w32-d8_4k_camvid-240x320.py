"""Twin of the YAML file of the same name."""

from ..common.blocks import dnl
from ..common.camvid_r18w32_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.context_block = dnl
train.output_dir = "output/camvid/dnl_r18w32-d8_4k_camvid-240x320"
