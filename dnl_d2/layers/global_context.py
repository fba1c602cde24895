"""The query-independent blocks of GCNet: simplified non-local and global context."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import (
    PointwiseConv,
    check_positive,
    init_normal,
    init_output,
    map_product,
)
from dnl_d2.layers.context_block import CONTEXT_BLOCKS, ContextBlock, MapRows
from dnl_d2.layers.functional import (
    autocast_off,
    cast,
    masked_softmax,
    position_mean,
    unary_weights,
)
from dnl_d2.layers.norms import Norm


class _PoolingBlock(ContextBlock):
    """Pools the map to one vector by a map that all queries share.

    Attributes:
        unary: the logits of attention pooling; None for the mean over positions.
    """

    unary: PointwiseConv | None

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``(N, C, *S)`` -> ``(N, C, 1)``; autocast, which would copy the map, has to be off."""
        flat = x.flatten(2)
        if self.unary is None:
            flat_mask = None if mask is None else mask.flatten(1)
            return position_mean(flat.transpose(1, 2), flat_mask).transpose(1, 2)
        row_mask = None if mask is None else mask.flatten(1).unsqueeze(1)
        weights = masked_softmax(_logits(self.unary, flat), row_mask)
        # Products of half precision are summed in fp32; a map in fp32 would be a copy.
        weights = cast(weights, x.dtype)
        # In the memory order of the map, also for its gradient: to add one of another is slow.
        if flat.stride(2) == 1:
            return torch.bmm(flat, weights.transpose(1, 2))
        return torch.bmm(weights, flat.transpose(1, 2)).transpose(1, 2)

    def attention_maps(
        self, x: Tensor, index: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        flat, flat_mask = x.flatten(2), None if mask is None else mask.flatten(1)
        with autocast_off(x):
            if self.unary is None:
                logits = torch.zeros_like(flat[:, 0])
            else:
                logits = _logits(self.unary, flat)[:, 0]
        weights = unary_weights(logits, flat_mask)
        return {"unary": weights.unflatten(1, tuple(x.shape[2:]))}

    def map_rows(self, x: Tensor, mask: Tensor | None) -> MapRows:
        """The map that all queries share, computed once; ``x`` is not kept."""
        maps = self.attention_maps(x, None, mask)
        return lambda index: {term: weights.clone() for term, weights in maps.items()}


def _logits(unary: PointwiseConv, flat: Tensor) -> Tensor:
    """``(N, C, L)`` -> ``(N, 1, L)``.

    Of a single channel a product's gradients take less time on a CPU than a convolution's.
    """
    weight, bias = cast(unary.weight, flat.dtype), unary.bias
    bias = None if bias is None else cast(bias, flat.dtype)
    return map_product(weight.flatten(1), flat, bias)


@CONTEXT_BLOCKS.register("snl")
class SimplifiedNonLocalBlock(_PoolingBlock):
    """Simplified non-local block: z_i = x_i + W_v sum_j softmax_j(W_k x_j) x_j (arXiv 1904.11492).

    One map serves all queries, so W_v is applied once, to the pooled vector.

    Args:
        in_channels: channels C of the map.
        norm: norm after W_v; None or "" for none. It normalises one vector per image.
        zero_init: start as an identity (zero W_v).
    """

    def __init__(self, in_channels: int, *, norm: Norm = None, zero_init: bool = True):
        super().__init__(in_channels)
        self.identity_at_init = zero_init
        self.unary = PointwiseConv(in_channels, 1)
        self.value = PointwiseConv(in_channels, in_channels, bias=not norm, norm=norm)
        _init_kaiming(self.unary)
        init_output(self.value, zero=zero_init)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        with autocast_off(x):
            pooled = self._pool(x, mask)
        return x + self.value(pooled.view(*pooled.shape, *(1,) * (x.dim() - 3)))


@CONTEXT_BLOCKS.register("gc")
class GlobalContextBlock(_PoolingBlock):
    """Global context block (arXiv 1904.11492).

    c = sum_j a_j x_j; z_i = x_i + W_2 ReLU(LN(W_1 c)), and with ``mul`` x_i is first multiplied by
    sigmoid(W_2' ReLU(LN(W_1' c))).

    Args:
        in_channels: channels C of the map.
        ratio: bottleneck width as a share of C: 1/16 or 1/4 in detection, 1/4 in segmentation.
        pooling: ``att`` (attention pooling) or ``avg`` (the paper's ablation).
        fusion: ``add``, ``mul`` or both.
        zero_init: start with a zero W_2; with ``add`` alone the block is then an identity.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ratio: float = 1 / 16,
        pooling: str = "att",
        fusion: Sequence[str] = ("add",),
        zero_init: bool = True,
    ):
        super().__init__(in_channels)
        check_positive(ratio=ratio)
        fusion = (fusion,) if isinstance(fusion, str) else tuple(fusion or ())
        if pooling not in ("att", "avg"):
            raise UsageError(f"unknown GC pooling {pooling!r}; use 'att' or 'avg'")
        if not fusion or len(set(fusion)) != len(fusion) or not set(fusion) <= {"add", "mul"}:
            raise UsageError(f"unknown GC fusion {list(fusion)}; use 'add', 'mul' or both")
        planes = max(int(in_channels * ratio), 2)  # a LayerNorm of one channel is constant
        self.identity_at_init = zero_init and fusion == ("add",)
        self.unary = PointwiseConv(in_channels, 1) if pooling == "att" else None
        if self.unary is not None:
            _init_kaiming(self.unary)
        self.channel_add = _Bottleneck(in_channels, planes, zero_init) if "add" in fusion else None
        self.channel_mul = _Bottleneck(in_channels, planes, zero_init) if "mul" in fusion else None

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = x
        with autocast_off(x):  # also for the casts of so few numbers
            pooled = self._pool(x, mask).unsqueeze(3)
            if self.channel_mul is not None:
                out = out * _for_map(self.channel_mul(pooled).sigmoid(), x)
            if self.channel_add is not None:
                out = out + _for_map(self.channel_add(pooled), x)
        return out


class _Bottleneck(nn.Sequential):
    """W_2 ReLU(LN(W_1 c)) on ``(N, C, 1, 1)``.

    By the weights of the convolutions: of so few numbers they take far longer than products.
    """

    def __init__(self, in_channels: int, planes: int, zero_init: bool):
        first, last = nn.Conv2d(in_channels, planes, 1), nn.Conv2d(planes, in_channels, 1)
        super().__init__(first, nn.LayerNorm([planes, 1, 1]), nn.ReLU(), last)
        _init_kaiming(first)
        if zero_init:
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        else:
            init_normal(0.01, last)

    def forward(self, pooled: Tensor) -> Tensor:
        layers: tuple[Any, ...] = tuple(self)
        first, norm, _, last = layers
        rows = cast(pooled.flatten(1), first.weight.dtype)
        hidden = F.linear(rows, first.weight.flatten(1), first.bias)
        # Convolutions may have half the bits of the norm, which CUDA's kernel takes no input of.
        scale, shift = norm.weight.flatten(), norm.bias.flatten()
        hidden = F.layer_norm(cast(hidden, scale.dtype), scale.shape, scale, shift, norm.eps)
        hidden = cast(hidden.relu_(), last.weight.dtype)
        return F.linear(hidden, last.weight.flatten(1), last.bias).view_as(pooled)


def _for_map(vector: Tensor, x: Tensor) -> Tensor:
    """``(N, C, 1, 1)`` as precise as a map and of its rank, to join to it."""
    vector = cast(vector, x.dtype)
    return vector if x.dim() == 4 else vector.view(*vector.shape[:2], *(1,) * (x.dim() - 2))


def _init_kaiming(conv: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
