"""A segmentation model for a CPU: R-18-D8 at half width, heads of 128 and 64 channels."""

from .segmentor_r50_d8 import model

model.backbone.depth = 18
model.backbone.stem_out_channels = 32
model.backbone.res2_out_channels = 32
model.sem_seg_head.input_shape.res4.channels = 128
model.sem_seg_head.input_shape.res5.channels = 256
model.sem_seg_head.channels = 128
model.sem_seg_head.auxiliary.channels = 64
