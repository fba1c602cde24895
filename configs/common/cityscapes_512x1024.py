"""Twin of cityscapes-512x1024.yaml."""

from .published_r50_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.num_classes = 19
dataloader.train.dataset.names = "cityscapes_sem_seg_train"
dataloader.test.dataset.names = "cityscapes_sem_seg_val"
dataloader.train.total_batch_size = 8
dataloader.train.mapper.augmentations.base_size = (2048, 1024)
dataloader.train.mapper.augmentations.crop_size = (512, 1024)
