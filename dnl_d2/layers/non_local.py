"""The non-local block of Wang et al. in its four pairwise forms."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.layers.common import (
    PointwiseConv,
    add_projected,
    check_count,
    check_known,
    init_normal,
    init_output,
    project_tokens,
    to_tokens,
)
from dnl_d2.layers.context_block import CONTEXT_BLOCKS, ContextBlock, MapRows
from dnl_d2.layers.functional import (
    autocast_off,
    check_backend,
    float_dtype,
    full_precision,
    operand_dtype,
    pairwise_attention,
    pairwise_weights,
    position_mean,
    split_softmax,
)
from dnl_d2.layers.norms import Norm

_SIMILARITY = {
    "gaussian": "softmax",
    "embedded_gaussian": "softmax",
    "dot_product": "dot",
    "concatenation": "relu_sum",
}


def resolve_inter_channels(in_channels: int, inter_channels: int | None, reduction: int) -> int:
    """``inter_channels`` if given, else ``in_channels // reduction``, at least 1."""
    check_count(reduction=reduction)
    if inter_channels is None:
        return max(in_channels // reduction, 1)
    check_count(inter_channels=inter_channels)
    return inter_channels


def sub_sample(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """2x max-pool of each of the last two axes (the only axis of a sequence), time left alone.

    An axis of size 1 stays. Padded positions never win a maximum; a window that holds nothing else
    gives zeros and is padding itself.
    """
    rank = x.dim() - 2
    kernel = _window(x.shape[2:])
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    if mask is None:
        return pool(x, kernel), None
    pooled = pool(x.masked_fill(mask[:, None], torch.finfo(x.dtype).min), kernel)
    empty = pool((~mask)[:, None].float(), kernel)[:, 0] == 0
    return pooled.masked_fill(empty[:, None], 0.0), empty


def on_positions(
    maps: Mapping[str, Tensor], spatial: Sequence[int], *, pooled: bool
) -> dict[str, Tensor]:
    """Flat weights ``(..., Lk)`` as ``(..., *spatial)`` maps.

    Where keys are pooled by :func:`sub_sample`, a key's weight is shared out evenly among the
    positions of its window; those of an odd size's end, which no window covers, get none.
    """
    window = _window(spatial) if pooled else [1] * len(spatial)
    size = [s // w for s, w in zip(spatial, window, strict=True)]
    spread = {}
    for term, weights in maps.items():
        shaped = weights.unflatten(-1, size)
        for axis, (length, width) in enumerate(zip(spatial, window, strict=True), -len(size)):
            if width > 1:
                shaped = shaped.repeat_interleave(width, axis) / width
            if shaped.shape[axis] < length:
                end = list(shaped.shape)
                end[axis] = length - shaped.shape[axis]
                shaped = torch.cat([shaped, shaped.new_zeros(end)], axis)
        spread[term] = shaped
    return spread


def _window(spatial: Sequence[int]) -> list[int]:
    """Positions along each axis that :func:`sub_sample` makes one of."""
    return [1] * max(len(spatial) - 2, 0) + [min(2, s) for s in spatial[-2:]]


@CONTEXT_BLOCKS.register("nl")
class NonLocalBlock(ContextBlock):
    """Non-local block: z_i = x_i + W_o sum_j w_ij v_j (arXiv 1711.07971, eq. 6).

    The paper's theta, phi and g are ``query``, ``key`` and ``value`` here, W_z is ``project``.

    Args:
        in_channels: channels C of the map.
        inter_channels: width C' of query, key and value; default C // ``reduction``.
        reduction: see ``inter_channels``.
        mode: pairwise form. ``gaussian`` softmax_j(x_i.x_j); ``embedded_gaussian``
            softmax_j(q_i.k_j / sqrt(C')); ``dot_product`` q_i.k_j / L; ``concatenation``
            ReLU(w^T [q_i, k_j]) / L.
        use_scale: whether ``embedded_gaussian`` divides by sqrt(C').
        sub_sample: 2x max-pool of keys and values.
        norm: norm of the output projection; None or "" for none.
        zero_init: start as an identity (zero output projection).
        attention_backend: how a softmax form is computed: ``auto``, ``plain``, ``fused`` or
            ``chunked``; see :func:`dnl_d2.layers.pairwise_attention`.
        attention_dtype: ``float32``, or ``bfloat16`` or ``float16`` for the operands of a fused
            kernel; default: those of autocast on CUDA, else ``float32``.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        inter_channels: int | None = None,
        reduction: int = 2,
        mode: str = "embedded_gaussian",
        use_scale: bool = True,
        sub_sample: bool = False,
        norm: Norm = None,
        zero_init: bool = True,
        attention_backend: str = "auto",
        attention_dtype: str | None = None,
    ):
        super().__init__(in_channels)
        check_known("pairwise mode", mode, _SIMILARITY)
        inter = resolve_inter_channels(in_channels, inter_channels, reduction)
        self.inter_channels = inter
        self.mode = mode
        self.attention_backend = check_backend(attention_backend)
        self.attention_dtype = float_dtype(attention_dtype)
        self.scale = inter**-0.5 if use_scale and mode == "embedded_gaussian" else 1.0
        self.sub_sample = sub_sample
        self.identity_at_init = zero_init
        if mode != "gaussian":
            self.query = PointwiseConv(in_channels, inter)
            self.key = PointwiseConv(in_channels, inter)
            init_normal(0.01, self.query, self.key)
        self.value = PointwiseConv(in_channels, inter)
        self.project = PointwiseConv(inter, in_channels, bias=not norm, norm=norm)
        init_normal(0.01, self.value)
        if mode == "concatenation":
            self.concat = nn.Conv2d(2 * inter, 1, 1, bias=False)
        init_output(self.project, zero=zero_init)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value, spatial_mask = self._operands(x, mask)
        context = pairwise_attention(
            query,
            key,
            value,
            scale=self.scale,
            key_padding_mask=None if spatial_mask is None else spatial_mask.flatten(1),
            **self._way(),
        )
        return add_projected(x, context, self.project)

    def _way(self) -> dict[str, Any]:
        """How attention is computed."""
        return {
            "similarity": _SIMILARITY[self.mode],
            "backend": self.attention_backend,
            "dtype": self.attention_dtype,
        }

    def attention_maps(
        self, x: Tensor, index: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        query, key, spatial_mask = self._query_key(x, mask)
        if index is not None:
            query = query[:, index]
        weights = pairwise_weights(
            query,
            key,
            similarity=_SIMILARITY[self.mode],
            scale=self.scale,
            key_padding_mask=None if spatial_mask is None else spatial_mask.flatten(1),
        )
        spatial = x.shape[2:] if not self.sub_sample else sub_sample(x[:, :1], None)[0].shape[2:]
        return {"pairwise": weights.unflatten(2, tuple(spatial))}

    def map_rows(self, x: Tensor, mask: Tensor | None) -> MapRows:
        """The forms without a softmax have ``"pairwise"`` alone: it does not split."""
        query, key, spatial_mask = self._query_key(x, mask)
        flat_mask = None if spatial_mask is None else spatial_mask.flatten(1)
        similarity = _SIMILARITY[self.mode]
        (full,) = full_precision(query)
        mean = position_mean(full, None if mask is None else mask.flatten(1))
        spatial = x.shape[2:]

        def rows(index: Tensor | None) -> dict[str, Tensor]:
            chosen = query if index is None else query[:, index]
            options: dict[str, Any] = {"scale": self.scale, "key_padding_mask": flat_mask}
            if similarity == "softmax":
                maps = split_softmax(chosen, mean, key, **options)
            else:
                weights = pairwise_weights(chosen, key, similarity=similarity, **options)
                maps = {"pairwise": weights}
            return on_positions(maps, spatial, pooled=self.sub_sample)

        return rows

    def _softmax_operands(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        return self._query_key(x, None)[:2] if _SIMILARITY[self.mode] == "softmax" else None

    def _operands(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Query, key and value tokens and the keys' mask as a map."""
        if self.mode in ("embedded_gaussian", "dot_product") and not self.sub_sample:
            convs = ([self.query], [self.key], [self.value])
            dtype = operand_dtype(x, **self._way())
            query, key, value = project_tokens(x, *convs, dtype=dtype)
            return query, key, value, mask
        query, key, spatial_mask = self._query_key(x, mask)
        if self.sub_sample:
            value = to_tokens(sub_sample(self.value(x), mask)[0])
        else:
            value = self.value.tokens(x)
        return query, key, value, spatial_mask

    def _query_key(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Query and key tokens and the keys' mask as a map."""
        if self.mode == "concatenation":
            return self._terms(x, mask)
        gaussian = self.mode == "gaussian"
        query = to_tokens(x) if gaussian else self.query.tokens(x)
        if self.sub_sample:
            key, mask = sub_sample(x if gaussian else self.key(x), mask)
            return query, to_tokens(key), mask
        return query, query if gaussian else self.key.tokens(x), mask

    def _terms(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """a and b of w^T [q_i, k_j] = a_i + b_j, as tokens of width 1; no (2C', L, L) tensor."""
        with autocast_off(x):
            (weight,) = full_precision(self.concat.weight.flatten(1))
            first, second = weight.split(self.inter_channels, 1)
            query = _projected_term(x, self.query, first)
            if not self.sub_sample:
                return query, _projected_term(x, self.key, second), mask
        key, mask = sub_sample(self.key(x), mask)
        with autocast_off(x):
            (key,) = full_precision(to_tokens(key))
            return query, key @ second.t(), mask


def _projected_term(x: Tensor, conv: PointwiseConv, weight: Tensor) -> Tensor:
    """weight (W x + b) as tokens of width 1, by (weight W) x + weight b, in fp32 or fp64."""
    assert conv.bias is not None  # of queries and keys
    x, inner, bias = full_precision(x, conv.weight.flatten(1), conv.bias)
    return to_tokens(x) @ (weight @ inner).t() + F.linear(bias[None], weight)
