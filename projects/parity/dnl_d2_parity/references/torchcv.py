"""The dilated ResNet of donnyyou/torchcv with its names, written down anew.

Widths follow from ``width``, which is 64 in the published models.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Of each stage: stride, dilation of the first block, dilation of the others. A stage that gave up
# its stride dilates its first 3x3 convolution by half.
STAGES = ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))


def named(**modules):
    """An ``nn.Sequential`` with names."""
    return nn.Sequential(OrderedDict(modules))


def norm_relu(channels):
    """Norm and ReLU, which torchcv always keeps in a Sequential of their own."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def conv3x3(in_channels, out_channels, *, stride=1, dilation=1, bias=False):
    return nn.Conv2d(
        in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=bias
    )


class Residual(nn.Module):
    def __init__(self, in_channels, width, stride, dilation):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if in_channels != 4 * width:
            shortcut = nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + (self.downsample or nn.Identity())(x))


class Backbone(nn.Module):
    """``forward`` gives the maps of the last two stages.

    Args:
        depth: 50 or 101.
        width: of the first stage's 3x3 convolutions.
        stem: what the module of the first convolutions is called; ``resinit`` in older versions.
    """

    def __init__(self, depth, width, stem="prefix"):
        super().__init__()
        self.stem = stem
        first = {}
        channels = 3
        for i, (out, stride) in enumerate([(width, 2), (width, 1), (2 * width, 1)], start=1):
            first[f"conv{i}"] = conv3x3(channels, out, stride=stride)
            first[f"bn{i}"] = nn.BatchNorm2d(out)
            first[f"relu{i}"] = nn.ReLU()
            channels = out
        self.add_module(stem, named(**first))
        for s, (count, (stride, start, others)) in enumerate(
            zip(BLOCKS[depth], STAGES, strict=True)
        ):
            blocks = []
            for b in range(count):
                dilation = start if b == 0 else others
                blocks.append(Residual(channels, width << s, stride if b == 0 else 1, dilation))
                channels = 4 * (width << s)
            self.add_module(f"layer{s + 1}", nn.Sequential(*blocks))

    def forward(self, image):
        x = F.max_pool2d(getattr(self, self.stem)(image), 3, 2, padding=1, ceil_mode=True)
        c4 = self.layer3(self.layer2(self.layer1(x)))
        return c4, self.layer4(c4)


def enlarge(logits, image):
    """To the size of the image, corner on corner."""
    return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)
