"""The asymmetric blocks of ANN: pyramid-sampled keys and values."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import (
    Activation,
    PointwiseConv,
    apply_2d,
    check_count,
    init_normal,
    init_output,
    map_product,
    to_tokens,
)
from dnl_d2.layers.context_block import (
    CONTEXT_BLOCKS,
    AttentionRows,
    ContextBlock,
    MapRows,
    check_mask,
    evaluating,
    flat_index,
)
from dnl_d2.layers.functional import autocast_off, convolved_dtype, full_precision, pairwise_weights
from dnl_d2.layers.non_local import resolve_inter_channels
from dnl_d2.layers.norms import Norm
from dnl_d2.layers.pyramid import pyramid_means, spread_over_positions


class _Context(NamedTuple):
    """W_o sum_s a_is v_s + b_o at every position i, left in factors.

    Attributes:
        weights: a, ``(N, L, P)``, fp32 or fp64; rows sum to 1, or to 0 where all is padding.
        value: W_o v, ``(N, P, C)``; with b_o, where all rows sum to 1.
        bias: b_o, ``(C,)``, unless it is in the values.
    """

    weights: Tensor
    value: Tensor
    bias: Tensor | None


class _PyramidAttention(nn.Module):
    """W_o sum_s softmax_s(q_i.k_s / sqrt(C')) v_s over pyramid samples s of the low map.

    Where ``low_channels`` is None, queries are from the low map too, by the projection of the keys.
    """

    def __init__(
        self,
        in_channels: int,
        low_channels: int | None,
        inter_channels: int,
        *,
        pool_scales: Sequence[int],
        norm: Norm,
    ):
        super().__init__()
        if not isinstance(pool_scales, Sequence) or not pool_scales:
            raise UsageError(f"pool_scales must list at least one level, got {pool_scales!r}")
        check_count(**{f"pool_scales[{i}]": s for i, s in enumerate(pool_scales)})
        conv = partial(PointwiseConv, bias=not norm, norm=norm, activation=_relu_after(norm))
        self.pool_scales = tuple(pool_scales)
        self.scale = inter_channels**-0.5
        source = in_channels if low_channels is None else low_channels
        self.key = conv(source, inter_channels)
        self.query = None if low_channels is None else conv(in_channels, inter_channels)
        self.value = PointwiseConv(source, inter_channels)
        self.project = PointwiseConv(inter_channels, in_channels)
        for layer in (self.key, self.query):
            if layer is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        init_normal(0.01, self.value)
        init_output(self.project, zero=True)

    def forward(self, x: Tensor, low: Tensor, mask: Tensor | None) -> _Context:
        weights = self._weights(*self._query_key(x, low, mask))
        # Means are linear: W_v mean(low) + b_v is the mean of the values.
        pooled, _ = pyramid_means(low, self.pool_scales, mask)
        inside, outside = self.project.bias, None
        if mask is not None:
            inside, outside = outside, inside
        with autocast_off(low):  # of so few samples casts would cost more than products
            value = _linear(pooled.to(self.value.weight.dtype), self.value.weight, self.value.bias)
            value = _linear(value, self.project.weight, inside)
        return _Context(weights, value, outside)

    def rows(self, x: Tensor, low: Tensor, mask: Tensor | None) -> MapRows:
        """Weights on the positions of ``low``: ``(N, Q, *S_low)``."""
        query, key, empty = self._query_key(x, low, mask)
        spatial = low.shape[2:]

        def rows(index: Tensor | None) -> dict[str, Tensor]:
            weights = self._weights(query if index is None else query[:, index], key, empty)
            return {"pairwise": spread_over_positions(weights, spatial, self.pool_scales, mask)}

        return rows

    def _query_key(
        self, x: Tensor, low: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        key = self.key(low)
        query = key if self.query is None else self.query(x)
        pooled, empty = pyramid_means(key, self.pool_scales, mask)
        return to_tokens(query), pooled, empty

    def _weights(self, query: Tensor, key: Tensor, empty: Tensor | None) -> Tensor:
        (key,) = full_precision(key)  # scaled here: a product with the few keys, not the queries
        return pairwise_weights(query, key * self.scale, key_padding_mask=empty)


class _Fusion(PointwiseConv):
    """norm(W [context, x]) without the map of contexts.

    W = [W_c, W_x], and W_c reaches the P pooled values instead of the L positions:
    W_c (W_o A v + b_o) + W_x x = A (W_c W_o v) + W_x x + W_c b_o. Products for each position at
    C = 512, C' = 256, P = 110: values C C', A v P C', W_o C C' and W 2 C^2 are 815 thousand; now
    A (W_c W_o v) P C and W_x C^2 are 318 thousand, and the few values cost P (2 C C' + C^2) in all.
    """

    def __init__(self, in_channels: int, *, norm: Norm, activation: Activation = None):
        super().__init__(
            2 * in_channels, in_channels, bias=not norm, norm=norm, activation=activation
        )
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def fuse(self, context: _Context, x: Tensor) -> Tensor:
        """What ``self(torch.cat([context, x], 1))`` is, ``(N, C, *S)``."""
        of_context, of_x = self.weight.flatten(1).chunk(2, 1)
        with autocast_off(x):
            value, bias = _linear(context.value, of_context), self.bias
            if context.bias is not None:
                bias = F.linear(context.bias, of_context, bias)
        out = map_product(of_x, x, bias)
        value, weights = value.to(out.dtype), context.weights.to(out.dtype)
        if out.is_contiguous():  # in place: it is ours
            out = out.baddbmm_(value.transpose(1, 2), weights.transpose(1, 2))
        else:
            out = torch.baddbmm(out.transpose(1, 2), weights, value).transpose(1, 2)
        fused = out.unflatten(2, x.shape[2:])
        return (
            fused
            if self.norm is None and self.activation is None
            else apply_2d(self._finish, fused)
        )


@CONTEXT_BLOCKS.register("apnb")
class AsymmetricPyramidNonLocalBlock(ContextBlock):
    """Asymmetric pyramid non-local block (arXiv 1908.07678, section 3.2).

    Attention over average-pooled samples of keys and values (110 of them with the default scales),
    then ReLU(norm(W [context, x])). Keys and queries share one projection, evaluated once.

    Args:
        in_channels: channels C of the map.
        inter_channels: width C' of query, key and value; default C // ``reduction``.
        reduction: see ``inter_channels``.
        pool_scales: cells per axis of each pyramid level.
        norm: norm of the key-query projection and of the output; None or "" for none.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        inter_channels: int | None = None,
        reduction: int = 2,
        pool_scales: Sequence[int] = (1, 3, 6, 8),
        norm: Norm = "BN",
    ):
        super().__init__(in_channels)
        inter = resolve_inter_channels(in_channels, inter_channels, reduction)
        self.inter_channels = inter
        self.attend = _PyramidAttention(
            in_channels, None, inter, pool_scales=pool_scales, norm=norm
        )
        self.bottleneck = _Fusion(in_channels, norm=norm, activation=_relu_after(norm))

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.to(convolved_dtype(x))  # once for all that reads it
        return self.bottleneck.fuse(self.attend(x, x, mask), x)

    def attention_maps(
        self, x: Tensor, index: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        return self.map_rows(x, mask)(index)

    def map_rows(self, x: Tensor, mask: Tensor | None) -> MapRows:
        """Weights on samples, shared out among the positions that a sample is the mean of."""
        return self.attend.rows(x, x, mask)


@CONTEXT_BLOCKS.register("afnb")
class AsymmetricFusionNonLocalBlock(ContextBlock):
    """Asymmetric fusion non-local block (arXiv 1908.07678, section 3.3).

    Queries come from the deep map, pyramid-sampled keys and values from a shallower one; then
    norm(W [context, x]) without activation.

    Args:
        in_channels: channels C of the deep map.
        low_channels: channels of the shallow map; default C.
        inter_channels: width C' of query, key and value; default C // ``reduction``.
        reduction: see ``inter_channels``.
        pool_scales: cells per axis of each pyramid level.
        norm: norm of the query and key projections and of the output; None or "" for none.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        low_channels: int | None = None,
        inter_channels: int | None = None,
        reduction: int = 2,
        pool_scales: Sequence[int] = (1, 3, 6, 8),
        norm: Norm = "BN",
    ):
        super().__init__(in_channels)
        self.low_channels = in_channels if low_channels is None else low_channels
        check_count(low_channels=self.low_channels)
        inter = resolve_inter_channels(in_channels, inter_channels, reduction)
        self.inter_channels = inter
        self.attend = _PyramidAttention(
            in_channels, self.low_channels, inter, pool_scales=pool_scales, norm=norm
        )
        self.bottleneck = _Fusion(in_channels, norm=norm)

    def forward(
        self, x: Tensor, key_padding_mask: Tensor | None = None, *, low: Tensor | None = None
    ) -> Tensor:
        """Applies the block.

        Args:
            x: the deep map ``(N, C, *S)``.
            key_padding_mask: boolean, of the size of the map that keys come from.
            low: the shallow map ``(N, C_low, *S_low)``, of the same rank; default ``x`` itself.

        Returns:
            ``(N, C, *S)``.
        """
        low = self._check_low(x, key_padding_mask, low)
        return self.bottleneck.fuse(self.attend(x, low, key_padding_mask), x)

    @torch.no_grad()
    def attention(
        self,
        x: Tensor,
        queries: Sequence[Sequence[int]] | None = None,
        key_padding_mask: Tensor | None = None,
        *,
        low: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weights of positions of ``x`` over the positions of ``low``: ``(N, Q, *S_low)``."""
        low = self._check_low(x, key_padding_mask, low)
        index = flat_index(queries, x.shape[2:], x.device)
        with evaluating(self):
            return self.attend.rows(x, low, key_padding_mask)(index)

    def attention_rows(
        self, x: Tensor, key_padding_mask: Tensor | None = None, **inputs: Tensor
    ) -> AttentionRows:
        """``"pairwise"`` of positions of ``x`` over those of ``low``."""
        low = self._check_low(x, key_padding_mask, **inputs)
        return self._rows_of(x, lambda: self.attend.rows(x, low, key_padding_mask))

    def _check_low(self, x: Tensor, mask: Tensor | None, low: Tensor | None = None) -> Tensor:
        self._check(x, None)
        low = x if low is None else low
        if low.dim() != x.dim() or low.shape[0] != x.shape[0] or low.shape[1] != self.low_channels:
            raise UsageError(
                f"AsymmetricFusionNonLocalBlock needs a shallow map ({x.shape[0]}, "
                f"{self.low_channels}, *S) of the deep map's rank, got {tuple(low.shape)}"
            )
        check_mask("AsymmetricFusionNonLocalBlock", low, mask)
        return low


def _relu_after(norm: Norm) -> Callable[[Tensor], Tensor]:
    """ReLU; in place unless a norm of the caller's may need its result for the gradient."""
    return torch.relu_ if norm is None or isinstance(norm, str) else F.relu


def _linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution on tokens ``(N, P, C)``."""
    rows = F.linear(tokens.flatten(0, 1), weight.flatten(1), bias)
    return rows.unflatten(0, tokens.shape[:2])
