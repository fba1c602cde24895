"""Twin of the YAML file of the same name."""

from ..common.blocks import dnl
from ..common.pascal_context_59_480x480 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.context_block = dnl
train.max_iter = 40000
train.checkpointer.period = 4000
train.eval_period = 4000
train.output_dir = "output/pascal-context/dnl_r50-d8_40k_pascal-context-59-480x480"
