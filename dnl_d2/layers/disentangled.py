"""The disentangled non-local block of Yin et al., in its four published variants."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import (
    Activation,
    PointwiseConv,
    add_projected,
    apply_2d,
    check_known,
    check_positive,
    init_normal,
    init_output,
    project_tokens,
    to_map,
)
from dnl_d2.layers.context_block import CONTEXT_BLOCKS, ContextBlock, MapRows, choices
from dnl_d2.layers.functional import (
    Mean,
    center,
    check_backend,
    convolved_dtype,
    float_dtype,
    full_precision,
    layer_mean,
    operand_dtype,
    pairwise_attention,
    pairwise_weights,
    position_mean,
    row_attention,
    split_softmax,
    unary_weights,
)
from dnl_d2.layers.non_local import on_positions, resolve_inter_channels, sub_sample
from dnl_d2.layers.norms import Norm, get_norm
from dnl_d2.layers.signatures import takes_fields_of

_WHITENING: dict[str, Mean | None] = {"channel": position_mean, "layer": layer_mean, "none": None}


@dataclass(frozen=True, kw_only=True)
class DisentangledVariant:
    """Options of :class:`DisentangledNonLocalBlock`; by default those of mmsegmentation.

    Attributes:
        inter_channels: width C' of query and key (and of value where there is a W_o); default
            C // ``reduction``.
        reduction: see ``inter_channels``.
        temperature: tau.
        use_scale: whether s is sqrt(C') or 1.
        project: whether there is a W_o; without it values have width C.
        norm: norm after W_o (after the sum where there is no W_o); None or "" for none.
        whitening: what mu is: ``channel`` the mean of each channel over positions; ``layer`` one
            mean over positions and channels (a variant of the authors, ``ln_nostd``); ``none`` 0.
        unary: whether there is the unary term; without it and with ``whitening="none"`` this is
            the non-local block of the authors' repositories.
        sub_sample: 2x max-pool of the map that keys, values and the unary term come from. (The
            non-local block pools keys and values, after their projections.)
        attention_backend: how the pairwise term is computed: ``auto``, ``plain``, ``fused`` or
            ``chunked``; see :func:`dnl_d2.layers.pairwise_attention`.
        attention_dtype: ``float32``, or ``bfloat16`` or ``float16`` for the operands of a fused
            kernel; default: those of autocast on CUDA, else ``float32``.
        gamma: whether the pairwise term is multiplied by a learned scalar that starts at zero, so
            that only the unary term counts at first. Without it W_o starts at zero and the block as
            an identity.
        activation: after the norm of W_o, which then starts at random: a ReLU of zeros would pass
            no gradient.
    """

    inter_channels: int | None = None
    reduction: int = 2
    temperature: float = 0.05
    use_scale: bool = True
    project: bool = True
    norm: Norm = None
    whitening: str = "channel"
    unary: bool = True
    sub_sample: bool = False
    attention_backend: str = "auto"
    attention_dtype: str | None = None
    gamma: bool = False
    activation: Activation = None

    def __post_init__(self) -> None:
        check_known("whitening", self.whitening, _WHITENING)
        check_positive(temperature=self.temperature)
        check_backend(self.attention_backend)


# What the public code bases do: mmsegmentation, the authors' two repositories and PaddleSeg.
PRESETS = {
    "mmseg": DisentangledVariant(),
    "paper-seg": DisentangledVariant(temperature=1.0, project=False, gamma=True),
    "paper-det": DisentangledVariant(reduction=4, project=False, gamma=True),
    "paddleseg": DisentangledVariant(activation=F.relu),
}
_BY_PRESET = ("gamma", "activation")


@CONTEXT_BLOCKS.register("dnl")
class DisentangledNonLocalBlock(ContextBlock):
    """Disentangled non-local block (arXiv 2006.06668).

    z_i = x_i + W_o [ sum_j softmax_j((q_i - mu_q).(k_j - mu_k) / (s tau)) v_j
    + sum_j softmax_j(m_j) v_j ]: a whitened pairwise term and an independent unary term that share
    the value projection.

    Args:
        in_channels: channels C of the map.
        preset: ``mmseg`` (segmentation heads of mmsegmentation: an identity at first),
            ``paper-seg`` or ``paper-det`` (the authors' repositories: no W_o by default, values
            of width C, a scalar gamma = 0 on the pairwise term), ``paddleseg`` (as ``mmseg``, with
            a ReLU last, no identity at first), or a :class:`DisentangledVariant`.
        options: fields of :class:`DisentangledVariant` to change; None leaves what the preset has.

    Raises:
        UsageError: unknown preset or option, or an argument out of range.
    """

    @takes_fields_of(DisentangledVariant, but=_BY_PRESET)
    def __init__(
        self, in_channels: int, *, preset: str | DisentangledVariant = "mmseg", **options: Any
    ):
        super().__init__(in_channels)
        variant = _variant(preset, options)
        inter = resolve_inter_channels(in_channels, variant.inter_channels, variant.reduction)
        self.inter_channels = inter
        self.scale = (inter**-0.5 if variant.use_scale else 1.0) / variant.temperature
        self.attention_backend = variant.attention_backend
        self.attention_dtype = float_dtype(variant.attention_dtype)
        self.whitening = variant.whitening
        self.sub_sample = variant.sub_sample
        live_at_first = variant.gamma and variant.unary
        self.identity_at_init = not live_at_first and variant.activation is None
        self.query = PointwiseConv(in_channels, inter)
        self.key = PointwiseConv(in_channels, inter)
        self.unary = PointwiseConv(in_channels, 1) if variant.unary else None
        norm = variant.norm
        if variant.project:
            self.value = PointwiseConv(in_channels, inter)
            # The authors' W_o has no bias; mmsegmentation's has one unless a norm follows.
            bias = not (norm or variant.gamma)
            self.project: PointwiseConv | None = PointwiseConv(
                inter, in_channels, bias=bias, norm=norm, activation=variant.activation
            )
        else:
            self.value = PointwiseConv(in_channels, in_channels, bias=False)
            self.project = None
            self.norm = get_norm(norm, in_channels)
        self.gamma = nn.Parameter(torch.zeros(1)) if variant.gamma else None
        self._init_weights()

    def _init_weights(self) -> None:
        init_normal(0.01, self.query, self.key, self.value)
        if self.unary is not None:
            init_normal(0.01, self.unary)
        if self.project is not None:
            zero = self.gamma is None and self.project.activation is None
            init_output(self.project, zero=zero)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        context, shared = self._context(x, mask)
        if self.project is not None:
            return add_projected(x, context, self.project, shared)
        context = context if shared is None else context + shared
        context = to_map(context.to(convolved_dtype(x)), x.shape[2:])
        return x + (context if self.norm is None else apply_2d(self.norm, context))

    def _context(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The pairwise term ``(N, L, C')`` and the unary one ``(N, 1, C')``."""
        way: dict[str, Any] = {"backend": self.attention_backend, "dtype": self.attention_dtype}
        dtype = operand_dtype(x, **way)
        query, key, value, logits, flat_mask = self._operands(x, mask, dtype)
        context = pairwise_attention(
            query, key, value, scale=self.scale, key_padding_mask=flat_mask, **way
        )
        if self.gamma is not None:
            context = (self.gamma * context).to(context.dtype)
        if logits is None:
            return context, None
        return context, row_attention(logits, value, flat_mask)

    def _operands(
        self, x: Tensor, mask: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Query and key (both whitened) and value tokens, logits ``(N, 1, L)``, the keys' mask."""
        others = [[self.value]] if self.unary is None else [[self.value], [self.unary]]
        if self.sub_sample:
            query, key, source, flat_mask = self._query_key(x, mask)
            value, *logits = project_tokens(source, *others, dtype=dtype)
        else:
            flat_mask = None if mask is None else mask.flatten(1)
            pair, value, *logits = project_tokens(x, [self.query, self.key], *others, dtype=dtype)
            if self.whitening == "channel":  # of each channel alone, so of both at once
                pair = center(pair, flat_mask)
            query, key = pair.chunk(2, -1)
            if self.whitening == "layer":
                query, key = (center(t, flat_mask, mean=layer_mean) for t in (query, key))
            # A copy, lest the rest of the product is kept for the backward pass.
            value = value.contiguous()
        return query, key, value, logits[0].transpose(1, 2) if logits else None, flat_mask

    def attention_maps(
        self, x: Tensor, index: Tensor | None, mask: Tensor | None
    ) -> dict[str, Tensor]:
        query, key, source, flat_mask = self._query_key(x, mask)
        if index is not None:
            query = query[:, index]
        weights = pairwise_weights(query, key, scale=self.scale, key_padding_mask=flat_mask)
        spatial = tuple(source.shape[2:])
        maps = {"pairwise": weights.unflatten(2, spatial)}
        if self.unary is not None:
            shared = unary_weights(self.unary(source).flatten(1), flat_mask)
            maps["unary"] = shared.unflatten(1, spatial)
        return maps

    def map_rows(self, x: Tensor, mask: Tensor | None) -> MapRows:
        """The raw softmax too, and ``"unary"``: the block's own.

        A block that does not whiten has the three terms of its softmax, unless it has a unary one
        of its own; one that whitens without a unary term has none.
        """
        query, key, source, query_mask, key_mask = self._projected(x, mask)
        (full,) = full_precision(query)
        mean = (_WHITENING[self.whitening] or position_mean)(full, query_mask)
        spatial, own = x.shape[2:], None
        if self.unary is not None:
            own = unary_weights(self.unary(source).flatten(1), key_mask)

        def rows(index: Tensor | None) -> dict[str, Tensor]:
            chosen = query if index is None else query[:, index]
            maps = split_softmax(chosen, mean, key, scale=self.scale, key_padding_mask=key_mask)
            if own is not None:
                maps["unary"] = own.clone()  # the caller's, who may change it
            elif self.whitening != "none":
                del maps["unary"]
            return on_positions(maps, spatial, pooled=self.sub_sample)

        return rows

    def _softmax_operands(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        return self._projected(x, None)[:2]

    def _query_key(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Query and key tokens, the map that keys come from, and the keys' mask."""
        query, key, source, query_mask, key_mask = self._projected(x, mask)
        mean = _WHITENING[self.whitening]
        if mean is not None:
            query, key = center(query, query_mask, mean=mean), center(key, key_mask, mean=mean)
        return query, key, source, key_mask

    def _projected(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """As :meth:`_query_key`, not whitened, and the queries' mask before the keys'."""
        source, key_mask = sub_sample(x, mask) if self.sub_sample else (x, mask)
        query_mask, key_mask = (None if m is None else m.flatten(1) for m in (mask, key_mask))
        return self.query.tokens(x), self.key.tokens(source), source, query_mask, key_mask


def _variant(preset: str | DisentangledVariant, options: Mapping[str, Any]) -> DisentangledVariant:
    """The preset with the options that are given."""
    known = [f.name for f in fields(DisentangledVariant) if f.name not in _BY_PRESET]
    for name in options:
        if name not in known:
            raise UsageError(
                f"DisentangledNonLocalBlock has no argument {name!r}; {choices(name, known)}"
            )
    chosen = preset if isinstance(preset, DisentangledVariant) else PRESETS.get(preset)
    if chosen is None:
        raise UsageError(f"unknown DNL preset {preset!r}; use one of {', '.join(PRESETS)}")
    variant = replace(chosen, **{k: v for k, v in options.items() if v is not None})
    if not (variant.project or variant.gamma):
        raise UsageError(
            f"DNL preset {preset!r} has an output projection: project=False is for "
            "the paper presets"
        )
    return variant
