"""Twin of pascal-context-59-480x480.yaml."""

from .pascal_context_60_480x480 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head.num_classes = 59
dataloader.train.dataset.names = "pascal_context_59_sem_seg_train"
dataloader.test.dataset.names = "pascal_context_59_sem_seg_val"
