"""What a slow-only ResNet is built of: stem, and residual blocks that may look along time."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.layers import build_context_block, get_norm


class ConvNorm3d(nn.Conv3d):
    """3-d convolution without bias, and its norm; it keeps odd sizes.

    Args:
        in_channels, out_channels: of the maps.
        kernel: (time, side).
        stride: of height and width; there is none of time.
        norm: as :func:`dnl_d2.layers.get_norm` takes it. Norms of images serve clips as well.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        norm: str = "BN",
    ):
        time, side = kernel
        super().__init__(
            in_channels,
            out_channels,
            (time, side, side),
            stride=(1, stride, stride),
            padding=(time // 2, side // 2, side // 2),
            bias=False,
        )
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = get_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, T, H, W) -> (N, C', T, H', W')``."""
        x = super().forward(x)
        if self.norm is None:
            return x
        return self.norm(x.flatten(3)).unflatten(3, x.shape[3:])


class Stem(nn.Module):
    """1x7x7 convolution and 1x3x3 max-pool, each with stride 2."""

    def __init__(self, out_channels: int, norm: str):
        super().__init__()
        self.conv1 = ConvNorm3d(3, out_channels, (1, 7), stride=2, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(F.relu_(self.conv1(x)), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Residual(nn.Module):
    """Residual block, bottleneck or basic, and the context block after it.

    The first convolution is the one that looks along time.

    Args:
        in_channels, out_channels: of the maps.
        bottleneck: whether there are three convolutions (1x1, 3x3, 1x1) or two of 3x3.
        time: length of the first convolution along time.
        stride: of height and width.
        stride_in_1x1: whether the first convolution of a bottleneck strides, or the 3x3 one.
        norm: see :class:`ConvNorm3d`.
        context: as :func:`dnl_d2.layers.build_context_block` takes it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck: bool,
        time: int,
        stride: int,
        stride_in_1x1: bool,
        norm: str,
        context: Mapping[str, Any] | str | None,
    ):
        super().__init__()
        self.conv3 = self.shortcut = None
        if bottleneck:
            width = out_channels // 4
            first, second = (stride, 1) if stride_in_1x1 else (1, stride)
            self.conv1 = ConvNorm3d(in_channels, width, (time, 1), stride=first, norm=norm)
            self.conv2 = ConvNorm3d(width, width, (1, 3), stride=second, norm=norm)
            self.conv3 = ConvNorm3d(width, out_channels, (1, 1), norm=norm)
        else:
            self.conv1 = ConvNorm3d(in_channels, out_channels, (time, 3), stride=stride, norm=norm)
            self.conv2 = ConvNorm3d(out_channels, out_channels, (1, 3), norm=norm)
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvNorm3d(in_channels, out_channels, (1, 1), stride=stride, norm=norm)
        self.context = build_context_block(context, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, T, H, W) -> (N, C', T, H', W')``."""
        out = self.conv2(F.relu_(self.conv1(x)))
        if self.conv3 is not None:
            out = self.conv3(F.relu_(out))
        out = F.relu_(out + (x if self.shortcut is None else self.shortcut(x)))
        return out if self.context is None else self.context(out)
