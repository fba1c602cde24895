"""PaddleSeg's ResNet-vd with its names, written down anew in plain PyTorch."""

import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ConvNorm(nn.Module):
    """``_conv`` and ``_batch_norm``; ReLU unless told otherwise."""

    def __init__(self, inputs, outputs, kernel=1, *, bias=True, relu=True, stride=1, dilation=1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self._conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=bias)
        self._batch_norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self._batch_norm(self._conv(x))
        return F.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, dilation, has_short):
        super().__init__()
        self.conv0 = ConvNorm(inputs, width, bias=False)
        self.conv1 = ConvNorm(width, width, 3, bias=False, stride=stride, dilation=dilation)
        self.conv2 = ConvNorm(width, 4 * width, bias=False, relu=False)
        self.short = ConvNorm(inputs, 4 * width, bias=False, relu=False) if has_short else None
        self.halves = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.conv1(self.conv0(x)))
        if self.halves:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True)
        return F.relu(out + (x if self.short is None else self.short(x)))


class ResNetVd(nn.Module):
    """At output stride 8, as published: every block of stages 3 and 4 is dilated, by 2 and 4."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv1_1 = ConvNorm(3, 32, 3, bias=False, stride=2)
        self.conv1_2 = ConvNorm(32, 32, 3, bias=False)
        self.conv1_3 = ConvNorm(32, 64, 3, bias=False)
        self.names: list[list[str]] = []
        channels = 64
        for stage, (count, dilation) in enumerate(zip(_STAGES[depth], (1, 1, 2, 4), strict=True)):
            width = 64 * 2**stage
            self.names.append([f"bb_{stage}_{i}" for i in range(count)])
            for i, name in enumerate(self.names[-1]):
                stride = 2 if i == 0 and stage == 1 else 1
                block = Bottleneck(channels, width, stride, dilation, has_short=i == 0)
                self.add_module(name, block)
                channels = 4 * width

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.conv1_3(self.conv1_2(self.conv1_1(x))), 3, 2, 1)
        features = []
        for names in self.names:
            for name in names:
                x = getattr(self, name)(x)
            features.append(x)
        return features
