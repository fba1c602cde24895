"""Twin of the YAML file of the same name."""

from ..common.blocks import dnl
from ..common.cityscapes_769x769 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.context_block = dnl
# No weight decay on the block's queries and keys.
optimizer.params.no_decay = ["context_block.query", "context_block.key"]
train.max_iter = 80000
train.checkpointer.period = 8000
train.eval_period = 8000
train.output_dir = "output/cityscapes/dnl_r50-d8_80k_cityscapes-769x769"
