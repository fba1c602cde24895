"""Twin of the YAML file of the same name."""

from ..common.cityscapes_512x1024 import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 40000
train.checkpointer.period = 4000
train.eval_period = 4000
train.output_dir = "output/cityscapes/fcn_r50-d8_40k_cityscapes-512x1024"
