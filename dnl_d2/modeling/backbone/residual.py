"""Detectron2's residual blocks with room for a context block.

The context block is the submodule ``context``, so the parameters of a plain ResNet keep their
names and a pretrained file stays a subset of the model.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, CNNBlockBase
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from dnl_d2.layers import build_context_block
from dnl_d2.layers.common import check_known
from dnl_d2.layers.functional import autocast_off, full_precision

# after_conv3: on the residual branch, after the last convolution and its norm (GCNet).
# after_add: on the sum with the shortcut, before the last ReLU (DNL detection).
POSITIONS = ("after_conv3", "after_add")
# What strides in a shortcut: the 1x1 convolution, or average pooling before it, which skips no
# position (ResNet-D, arXiv 1812.01187; ResNet-vd, ResNet-V1d).
SHORTCUTS = ("conv", "avg_pool")


class _ContextResidual(CNNBlockBase):
    """Mixin: the residual sum with a context block at one of two places."""

    def _complete(
        self, stride: int, shortcut: str, context: Mapping[str, Any] | None, position: str
    ) -> None:
        """What the block has beside Detectron2's, see :class:`ContextBasicBlock`."""
        check_known("ResNet shortcut", shortcut, SHORTCUTS)
        check_known("context position", position, POSITIONS)
        self.pool = None
        if shortcut == "avg_pool" and stride > 1 and self.shortcut is not None:
            # At odd sizes the last cells are means over the positions that exist.
            self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
            self.shortcut.stride = (1, 1)
        self.position = position
        self.context = build_context_block(context, self.out_channels)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Applies the block.

        Args:
            x: ``(N, C_in, H, W)``.
            key_padding_mask: ``(N, H', W')`` at the resolution of the result, for the context
                block, see :meth:`dnl_d2.layers.context_block.ContextBlock.forward`.

        Returns:
            ``(N, C_out, H', W')``.
        """
        out = self.residual(x)
        if self.context is not None and self.position == "after_conv3":
            out = self.context(out, key_padding_mask)
            return F.relu_(out + self._skip(x))  # a gradient may need the block's result
        out += self._skip(x)
        if self.context is None:
            return F.relu_(out)
        return F.relu(self.context(out, key_padding_mask))

    def _skip(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else self.pool(x)
        return x if self.shortcut is None else self.shortcut(x)


class ContextBasicBlock(_ContextResidual, BasicBlock):
    """Residual block of ResNet-18 and -34, with dilation and an optional context block.

    Only the first convolution is dilated, as in the public dilated ResNet-18 models.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str = "BN",
        dilation: int = 1,
        shortcut: str = "conv",
        context: Mapping[str, Any] | None = None,
        position: str = "after_conv3",
    ):
        super().__init__(in_channels, out_channels, stride=stride, norm=norm)
        self.conv1.dilation = self.conv1.padding = (dilation, dilation)
        self._complete(stride, shortcut, context, position)

    def residual(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu_(self.conv1(x)))


class ContextBottleneckBlock(_ContextResidual, BottleneckBlock):
    """Bottleneck block of ResNet-50 and deeper, and of ResNeXt, with an optional context block.

    Its 3x3 convolution can be deformable (arXiv 1703.06211; with ``deform_modulated`` arXiv
    1811.11168). The parameters are named as in :class:`detectron2.modeling.DeformBottleneckBlock`,
    but the operator is torchvision's, which needs no compiled Detectron2 and runs on CPUs too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: str = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        shortcut: str = "conv",
        deform: bool = False,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
        context: Mapping[str, Any] | None = None,
        position: str = "after_conv3",
    ):
        super().__init__(
            in_channels,
            out_channels,
            bottleneck_channels=bottleneck_channels,
            stride=stride,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        self.deform_modulated = deform_modulated
        self.conv2_offset = self._offsets(deform_num_groups) if deform else None
        self._complete(stride, shortcut, context, position)

    def _offsets(self, num_groups: int) -> Conv2d:
        conv = self.conv2
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        offsets = Conv2d(
            conv.in_channels,
            (3 if self.deform_modulated else 2) * taps * num_groups,
            kernel_size=conv.kernel_size,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
        )
        # Starts as the plain convolution (modulated: as half of it).
        nn.init.zeros_(offsets.weight)
        nn.init.zeros_(offsets.bias)
        return offsets

    def residual(self, x: Tensor) -> Tensor:
        out = F.relu_(self.conv1(x))
        out = self.conv2(out) if self.conv2_offset is None else self._deform(out, self.conv2_offset)
        return self.conv3(F.relu_(out))

    def _deform(self, x: Tensor, offsets: Conv2d) -> Tensor:
        offset, mask = offsets(x), None
        if self.deform_modulated:
            *offset, mask = offset.chunk(3, dim=1)
            offset, mask = torch.cat(offset, dim=1), mask.sigmoid()
        with autocast_off(x):  # the operator has no bfloat16
            image, offset, weight = full_precision(x, offset, self.conv2.weight)
            out = deform_conv2d(
                image,
                offset,
                weight,
                None if self.conv2.bias is None else full_precision(self.conv2.bias)[0],
                stride=self.conv2.stride,
                padding=self.conv2.padding,
                dilation=self.conv2.dilation,
                mask=None if mask is None else full_precision(mask)[0],
            ).to(x.dtype)
        return out if self.conv2.norm is None else self.conv2.norm(out)
