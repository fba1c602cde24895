"""Twin of the YAML file of the same name."""

from ..common.pascal_context_59_480x480 import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 40000
train.checkpointer.period = 4000
train.eval_period = 4000
train.output_dir = "output/pascal-context/fcn_r50-d8_40k_pascal-context-59-480x480"
