"""Twin of the YAML file of the same name."""

from ..common.ade20k_512x512 import dataloader, lr_multiplier, model, optimizer, train
from ..common.models.asymmetric_head import asymmetric

model.sem_seg_head = asymmetric(model.sem_seg_head)
train.max_iter = 80000
train.checkpointer.period = 8000
train.eval_period = 8000
train.output_dir = "output/ade20k/ann_r50-d8_80k_ade20k-512x512"
