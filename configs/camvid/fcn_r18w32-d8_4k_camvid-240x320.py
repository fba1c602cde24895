"""Twin of the YAML file of the same name."""

from ..common.camvid_r18w32_d8 import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/camvid/fcn_r18w32-d8_4k_camvid-240x320"
