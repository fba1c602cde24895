"""Twin of the YAML file of the same name."""

from ..common.blocks import snl
from ..common.cityscapes_512x1024 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
model.sem_seg_head.context_block = snl
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/resnet101_v1c-e67eebb6.pth"
)
train.max_iter = 40000
train.checkpointer.period = 4000
train.eval_period = 4000
train.output_dir = "output/cityscapes/snl_r101-d8_40k_cityscapes-512x1024"
