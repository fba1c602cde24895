"""Twin of coco_mask_rcnn_x101-32x4d_fpn.yaml."""

from .coco_mask_rcnn_r50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(depth=101, num_groups=32, width_per_group=4)
train.init_checkpoint = (
    "https://download.openmmlab.com/pretrain/third_party/resnext101_32x4d-a5af3160.pth"
)
