"""Twin of coco_mask_rcnn_r50_fpn_4conv1fc.yaml."""

from .coco_mask_rcnn_r50_fpn import dataloader, lr_multiplier, model, optimizer, train

model.backbone.norm = "SyncBN"
model.roi_heads.box_head.conv_dims = [256, 256, 256, 256]
model.roi_heads.box_head.fc_dims = [1024]
model.roi_heads.box_head.conv_norm = "SyncBN"
model.roi_heads.mask_head.conv_norm = "SyncBN"
