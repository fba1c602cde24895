"""Twin of the YAML file of the same name."""

from detectron2.config import LazyCall as L

from dnl_d2.modeling import AsymmetricHead

from ..common.camvid_r18w32_d8 import dataloader, lr_multiplier, model, optimizer, train

model.sem_seg_head = L(AsymmetricHead)(
    input_shape=model.sem_seg_head.input_shape,
    in_features=["res4", "res5"],
    channels=model.sem_seg_head.channels,
    project_channels=64,
    norm=model.sem_seg_head.norm,
    num_classes=model.sem_seg_head.num_classes,
    align_corners=model.sem_seg_head.align_corners,
    auxiliary=model.sem_seg_head.auxiliary,
)
lr_multiplier.warmup_length = 100 / 700
train.max_iter = 700
train.output_dir = "output/camvid/ann_r18w32-d8_700_camvid-240x320"
