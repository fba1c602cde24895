"""Twin of the YAML file of the same name."""

from ..common.blocks import gc
from ..common.train import run_for
from ..common.voc12aug_512x512 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.context_block = gc
run_for(train, iterations=20000)
train.output_dir = "output/voc12aug/gc_r50-d8_20k_voc12aug-512x512"
