"""Context blocks beside those of mmcv and mmsegmentation, with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass

from mmcv.cnn import ContextBlock, NonLocal2d
from mmseg.models.decode_heads.ann_head import APNB
from mmseg.models.decode_heads.dnl_head import DisentangledNonLocal2d
from torch import nn

from dnl_d2.checkpoint.keymap import PARAM, Rule, to_ours
from dnl_d2.checkpoint.sources.mmseg import conv_module, global_context_rules, non_local_rules
from dnl_d2.layers import (
    AsymmetricPyramidNonLocalBlock,
    DisentangledNonLocalBlock,
    GlobalContextBlock,
    NonLocalBlock,
)
from dnl_d2_parity.benchmarks.block_cases import Settings
from dnl_d2_parity.benchmarks.block_costs import POOL_SCALES
from dnl_d2_parity.references import mmseg


@dataclass(frozen=True)
class Pair:
    """A block of ours and its reference.

    Args:
        ours, reference: build them.
        name: what mmsegmentation's heads call the block, which decides its random weights.
        rules: (public prefix, our prefix) -> translation of the reference's parameters.
        untrainable: why the reference cannot be trained, if so.
    """

    ours: Callable[[Settings], nn.Module]
    reference: Callable[[Settings], nn.Module]
    name: str
    rules: Callable[[str, str], list[Rule]]
    untrainable: str = ""


def _non_local(mode: str, untrainable: str = "") -> Pair:
    return Pair(
        lambda s: NonLocalBlock(
            s.channels, inter_channels=s.inter_channels, mode=mode, attention_backend=s.backend
        ),
        lambda s: NonLocal2d(s.channels, reduction=s.reduction, mode=mode),
        "nl_block",
        non_local_rules,
        untrainable,
    )


def _their_pyramid(s: Settings) -> nn.Module:
    return APNB(
        s.channels,
        s.inter_channels,
        s.channels,
        query_scales=(1,),
        key_pool_scales=POOL_SCALES,
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


PAIRS = {
    "nl": _non_local("embedded_gaussian"),
    "dnl": Pair(
        lambda s: DisentangledNonLocalBlock(
            s.channels, inter_channels=s.inter_channels, attention_backend=s.backend
        ),
        lambda s: DisentangledNonLocal2d(s.channels, reduction=s.reduction, temperature=0.05),
        "dnl_block",
        non_local_rules,
    ),
    "dot": _non_local("dot_product"),
    "concatenation": _non_local(
        "concatenation",
        untrainable="its backward pass fails: it divides the output of a ReLU in place",
    ),
    "gaussian": _non_local("gaussian"),
    "gc": Pair(
        lambda s: GlobalContextBlock(s.channels, ratio=1 / 4),
        lambda s: ContextBlock(s.channels, ratio=1 / 4),
        "gc_block",
        global_context_rules,
    ),
    "apnb": Pair(
        lambda s: AsymmetricPyramidNonLocalBlock(s.channels, inter_channels=s.inter_channels),
        _their_pyramid,
        "context",
        _pyramid_rules,
    ),
}


def build(block: str, side: str, settings: Settings) -> nn.Module:
    """One side of a pair, ``ours`` or ``reference``, with weights that are equal on both."""
    pair = PAIRS[block]
    theirs = pair.reference(settings)
    state = mmseg.random_weights(nn.ModuleDict({pair.name: theirs}), seed=0)
    if side == "reference":
        theirs.load_state_dict({k.removeprefix(f"{pair.name}."): v for k, v in state.items()})
        return theirs
    ours, converted = pair.ours(settings), to_ours(state, pair.rules(pair.name, "ours"))
    if converted.unexpected:
        raise ValueError(f"parameters without translation: {', '.join(converted.unexpected)}")
    ours.load_state_dict({k.removeprefix("ours."): v for k, v in converted.state.items()})
    return ours
