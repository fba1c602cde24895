"""Twin of the YAML file of the same name."""

from ..common.pascal_context_60_480x480 import dataloader, lr_multiplier, model, optimizer, train
from ..common.train import run_for

run_for(train, iterations=40000)
train.output_dir = "output/pascal-context/fcn_r50-d8_40k_pascal-context-60-480x480"
