"""Twin of the YAML file of the same name."""

from ..common.voc12aug_512x512 import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 20000
train.checkpointer.period = 2000
train.eval_period = 2000
train.output_dir = "output/voc12aug/fcn_r50-d8_20k_voc12aug-512x512"
