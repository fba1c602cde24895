"""Twin of pascal-context-60-480x480.yaml."""

from .published_r50_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.num_classes = 60
dataloader.train.dataset.names = "pascal_context_60_sem_seg_train"
dataloader.test.dataset.names = "pascal_context_60_sem_seg_val"
dataloader.train.total_batch_size = 16
dataloader.train.mapper.augmentations.base_size = (520, 520)
dataloader.train.mapper.augmentations.crop_size = (480, 480)
model.slide_window = (480, 480)
model.slide_stride = (320, 320)
optimizer.lr = 0.004
optimizer.weight_decay = 1e-4
lr_multiplier.end_value = 0.025  # 1e-4 / 0.004
