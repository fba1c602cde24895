"""Twin of the YAML file of the same name."""

from ..common.models.asymmetric_head import asymmetric
from ..common.train import run_for
from ..common.voc12aug_512x512 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head = asymmetric(model.sem_seg_head)
run_for(train, iterations=20000)
train.output_dir = "output/voc12aug/ann_r50-d8_20k_voc12aug-512x512"
