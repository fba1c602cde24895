"""A small segmentor and its pictures, for the tests of inference."""

import torch

from dnl_d2.modeling import ContextHead
from tests.modeling.configs import small_resnet


def parts(align_corners=False):
    torch.manual_seed(0)
    backbone = small_resnet(output_stride=8)
    head = ContextHead(
        backbone.output_shape(),
        in_features=["res5"],
        channels=16,
        norm="BN",
        num_classes=5,
        context_block="dnl",
        align_corners=align_corners,
    )
    torch.nn.init.normal_(head.predictor.weight)
    torch.nn.init.ones_(head.context_block.project.weight)
    return dict(backbone=backbone, sem_seg_head=head, pixel_mean=[120.0] * 3, pixel_std=[60.0] * 3)


def image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
