"""Twin of the YAML file of the same name."""

from ..common.camvid_r18w32_d8 import dataloader, lr_multiplier, model, optimizer, train
from ..common.models.asymmetric_head import asymmetric

model.sem_seg_head = asymmetric(model.sem_seg_head)
model.sem_seg_head.project_channels = 64
train.max_iter = 700
train.output_dir = "output/camvid/ann_r18w32-d8_700_camvid-240x320"
