"""Twin of cityscapes-769x769.yaml."""

from .cityscapes_512x1024 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.align_corners = True
model.slide_window = (769, 769)
model.slide_stride = (513, 513)
dataloader.train.mapper.augmentations.base_size = (2049, 1025)
dataloader.train.mapper.augmentations.crop_size = (769, 769)
