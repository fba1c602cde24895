"""Context blocks beside the public ones with the same weights, and what both cost.

The public ones are those of mmcv and mmsegmentation: importing this needs requirements/parity.txt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from dnl_d2.checkpoint.keymap import PARAM, Rule, to_ours
from dnl_d2.checkpoint.sources.mmseg import conv_module, global_context_rules, non_local_rules
from dnl_d2.layers import (
    AsymmetricPyramidNonLocalBlock,
    DisentangledNonLocalBlock,
    GlobalContextBlock,
    NonLocalBlock,
)
from tests.reference import mmseg

# isort: split
# Only now can mmsegmentation itself be imported.
from mmseg.models.decode_heads.ann_head import APNB
from mmseg.models.decode_heads.dnl_head import DisentangledNonLocal2d

_POOL_SCALES = (1, 3, 6, 8)


@dataclass(frozen=True)
class Widths:
    """What blocks are built with: C, C' (which divides C) and ``attention_backend``."""

    channels: int
    inter_channels: int
    backend: str = "auto"

    @property
    def reduction(self) -> int:
        return self.channels // self.inter_channels


@dataclass(frozen=True)
class Pair:
    """A block of ours and its reference.

    Args:
        ours, reference: build them.
        name: what mmsegmentation's heads call the block, which decides its random weights.
        rules: (public prefix, our prefix) -> translation of the reference's parameters.
        products: (C, C', L) -> multiply-adds of our forward pass on one sample.
        maps: (C', training) -> L x L maps that the reference holds at once.
        untrainable: why the reference cannot be trained, if so.
    """

    ours: Callable[[Widths], nn.Module]
    reference: Callable[[Widths], nn.Module]
    name: str
    rules: Callable[[str, str], list[Rule]]
    products: Callable[[int, int, int], int]
    maps: Callable[[int, bool], int]
    untrainable: str = ""


def _softmax_maps(_: int, training: bool) -> int:
    """Logits and weights; in training the gradients of both too."""
    return 4 if training else 2


def _no_maps(_: int, __: bool) -> int:
    return 0


# ---- the non-local block in four forms, with four projections C x C' (gaussian: two)


def _our_non_local(mode: str, w: Widths) -> nn.Module:
    return NonLocalBlock(
        w.channels, inter_channels=w.inter_channels, mode=mode, attention_backend=w.backend
    )


def _their_non_local(mode: str, w: Widths) -> nn.Module:
    return mmseg.NonLocal2d(w.channels, reduction=w.reduction, mode=mode)


def _non_local(mode: str, **costs) -> Pair:
    sides = dict(ours=partial(_our_non_local, mode), reference=partial(_their_non_local, mode))
    return Pair(**sides, name="nl_block", rules=non_local_rules, **costs)


def _nl_products(c: int, k: int, n: int) -> int:
    return 4 * c * k * n + 2 * k * n * n


def _gaussian_products(c: int, k: int, n: int) -> int:
    return 2 * c * k * n + (c + k) * n * n


def _dot_products(c: int, k: int, n: int) -> int:
    """After the projections k^T v and q (k^T v)."""
    return (4 * c * k + 2 * k * k) * n


def _dot_maps(_: int, training: bool) -> int:
    return 3 if training else 1


def _concatenation_products(c: int, k: int, n: int) -> int:
    """After the projections a = w^T q, b = w^T k, b v, two prefix sums and a times one of them."""
    return (4 * c * k + 6 * k) * n


def _concatenation_maps(k: int, _: bool) -> int:
    """Queries and keys repeated, C' maps each; both as one, and the convolution's copy; logits."""
    return 6 * k + 2


# ---- DNL


def _our_disentangled(w: Widths) -> nn.Module:
    return DisentangledNonLocalBlock(
        w.channels, inter_channels=w.inter_channels, attention_backend=w.backend
    )


def _their_disentangled(w: Widths) -> nn.Module:
    return DisentangledNonLocal2d(w.channels, reduction=w.reduction, temperature=0.05)


def _dnl_products(c: int, k: int, n: int) -> int:
    """As NL, and the unary term: a logit and a share of the pooled vector at each position."""
    return _nl_products(c, k, n) + (c + k) * n


# ---- GC


def _our_global_context(w: Widths) -> nn.Module:
    return GlobalContextBlock(w.channels, ratio=1 / 4)


def _their_global_context(w: Widths) -> nn.Module:
    return mmseg.ContextBlock(w.channels, ratio=1 / 4)


def _gc_products(c: int, _: int, n: int) -> int:
    """Logits, pooling, and the bottleneck on one vector."""
    return 2 * c * n + 2 * c * (c // 4)


# ---- APNB


def _our_pyramid(w: Widths) -> nn.Module:
    return AsymmetricPyramidNonLocalBlock(w.channels, inter_channels=w.inter_channels)


def _their_pyramid(w: Widths) -> nn.Module:
    return APNB(
        w.channels,
        w.inter_channels,
        w.channels,
        query_scales=(1,),
        key_pool_scales=_POOL_SCALES,
        conv_cfg=None,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="ReLU"),
    )


def _pyramid_rules(public: str, ours: str) -> list[Rule]:
    stage, attend = f"{public}.stages.0", f"{ours}.attend"
    return [
        *conv_module(f"{stage}.key_project", f"{attend}.key"),
        *conv_module(f"{stage}.query_project", f"{attend}.key"),  # the same module
        Rule(f"{stage}.value_project.{PARAM}", f"{attend}.value.{PARAM}"),
        Rule(f"{stage}.out_project.{PARAM}", f"{attend}.project.{PARAM}"),
        *conv_module(f"{public}.bottleneck", f"{ours}.bottleneck"),
    ]


def _pyramid_products(c: int, k: int, n: int) -> int:
    """Shared projection, pooling of x and keys along one axis, logits, contexts, W_x x; values."""
    cells, bins = sum(s * s for s in _POOL_SCALES), sum(_POOL_SCALES)
    each = c * k + bins * (c + k) + cells * k + cells * c + c * c
    return each * n + cells * (2 * c * k + c * c)


PAIRS = {
    "nl": _non_local("embedded_gaussian", products=_nl_products, maps=_softmax_maps),
    "dnl": Pair(
        ours=_our_disentangled,
        reference=_their_disentangled,
        name="dnl_block",
        rules=non_local_rules,
        products=_dnl_products,
        maps=_softmax_maps,
    ),
    "dot": _non_local("dot_product", products=_dot_products, maps=_dot_maps),
    "concatenation": _non_local(
        "concatenation",
        products=_concatenation_products,
        maps=_concatenation_maps,
        untrainable="its backward pass fails: it divides the output of a ReLU in place",
    ),
    "gaussian": _non_local("gaussian", products=_gaussian_products, maps=_softmax_maps),
    "gc": Pair(
        ours=_our_global_context,
        reference=_their_global_context,
        name="gc_block",
        rules=global_context_rules,
        products=_gc_products,
        maps=_no_maps,
    ),
    "apnb": Pair(
        ours=_our_pyramid,
        reference=_their_pyramid,
        name="context",
        rules=_pyramid_rules,
        products=_pyramid_products,
        maps=_no_maps,
    ),
}


def build(block: str, side: str, widths: Widths) -> nn.Module:
    """One side of a pair, ``ours`` or ``reference``, with weights that are equal on both."""
    pair = PAIRS[block]
    theirs = pair.reference(widths)
    state = mmseg.random_weights(nn.ModuleDict({pair.name: theirs}), seed=0)
    if side == "reference":
        theirs.load_state_dict({k.removeprefix(f"{pair.name}."): v for k, v in state.items()})
        return theirs
    ours, converted = pair.ours(widths), to_ours(state, pair.rules(pair.name, "ours"))
    if converted.unexpected:
        raise ValueError(f"parameters without translation: {', '.join(converted.unexpected)}")
    ours.load_state_dict({k.removeprefix("ours."): v for k, v in converted.state.items()})
    return ours
