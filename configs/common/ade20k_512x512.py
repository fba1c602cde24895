"""Twin of ade20k-512x512.yaml."""

from .published_r50_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.num_classes = 150
dataloader.train.dataset.names = "ade20k_150_sem_seg_train"
dataloader.test.dataset.names = "ade20k_150_sem_seg_val"
dataloader.train.total_batch_size = 16
dataloader.train.mapper.augmentations.base_size = (2048, 512)
dataloader.train.mapper.augmentations.crop_size = (512, 512)
