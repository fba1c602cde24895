"""Checkpoints of mmsegmentation, 0.x and 1.x: FCN, NL, GC, DNL and ANN heads."""

from functools import partial

from dnl_d2.checkpoint.describe import openmmlab_meta
from dnl_d2.checkpoint.keymap import NORM, PARAM, Rule, State, has
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.resnet import openmmlab_rules

_HEAD, _AUXILIARY = "sem_seg_head", "sem_seg_head.auxiliary"


def conv_module(public: str, ours: str) -> list[Rule]:
    """A convolution that may have a norm, stored as ``conv`` and ``bn``."""
    return [
        Rule(f"{public}.conv.{PARAM}", f"{ours}.{PARAM}"),
        Rule(f"{public}.bn.{NORM}", f"{ours}.norm.{NORM}"),
    ]


def non_local_rules(public: str, ours: str) -> list[Rule]:
    """NL and DNL. DNL's ``conv_mask`` is a plain convolution."""
    return [
        *conv_module(f"{public}.theta", f"{ours}.query"),
        *conv_module(f"{public}.phi", f"{ours}.key"),
        *conv_module(f"{public}.g", f"{ours}.value"),
        *conv_module(f"{public}.conv_out", f"{ours}.project"),
        Rule(f"{public}.concat_project.conv.weight", f"{ours}.concat.weight"),
        Rule(f"{public}.conv_mask.{PARAM}", f"{ours}.unary.{PARAM}"),
    ]


def global_context_rules(public: str, ours: str) -> list[Rule]:
    """GC: attention pooling, then channel add and channel multiply."""
    return [
        Rule(f"{public}.conv_mask.{PARAM}", f"{ours}.unary.{PARAM}"),
        Rule(f"{public}.channel_add_conv.{{i}}.{PARAM}", f"{ours}.channel_add.{{i}}.{PARAM}"),
        Rule(f"{public}.channel_mul_conv.{{i}}.{PARAM}", f"{ours}.channel_mul.{{i}}.{PARAM}"),
    ]


def _rules(state: State, pooled: bool) -> list[Rule]:
    asymmetric = has(state, "decode_head.fusion.{rest:*}", f"{_HEAD}.fusion.{{rest:*}}")
    return [
        *openmmlab_rules(state, pooled=pooled),
        Rule(f"decode_head.conv_seg.{PARAM}", f"{_HEAD}.predictor.{PARAM}"),
        *(_asymmetric_rules() if asymmetric else _context_rules("decode_head", _HEAD)),
        *(() if asymmetric else _block_rules(state)),
        Rule(f"auxiliary_head.conv_seg.{PARAM}", f"{_AUXILIARY}.predictor.{PARAM}"),
        *_context_rules("auxiliary_head", _AUXILIARY),
    ]


def _context_rules(public: str, ours: str) -> list[Rule]:
    return [
        *conv_module(f"{public}.convs.{{c}}", f"{ours}.convs.{{c}}"),
        *conv_module(f"{public}.conv_cat", f"{ours}.fuse"),
    ]


def _block_rules(state: State) -> list[Rule]:
    """Of the one block that is there, under its public name or ours."""
    ours = f"{_HEAD}.context_block"
    if has(state, "decode_head.gc_block.{rest:*}", f"{ours}.channel_{{rest:*}}"):
        return global_context_rules("decode_head.gc_block", ours)
    disentangled = has(state, "decode_head.dnl_block.{rest:*}", f"{ours}.unary.weight")
    return non_local_rules(f"decode_head.{'dnl' if disentangled else 'nl'}_block", ours)


def _asymmetric_rules() -> list[Rule]:
    rules = conv_module("decode_head.bottleneck", f"{_HEAD}.bottleneck.1")
    for block in ("fusion", "context"):
        public, ours = f"decode_head.{block}.stages.0", f"{_HEAD}.{block}.attend"
        # APNB's one projection for keys and queries is stored under both names.
        query = "query" if block == "fusion" else "key"
        rules += [
            *conv_module(f"{public}.key_project", f"{ours}.key"),
            *conv_module(f"{public}.query_project", f"{ours}.{query}"),
            Rule(f"{public}.value_project.{PARAM}", f"{ours}.value.{PARAM}"),
            Rule(f"{public}.out_project.{PARAM}", f"{ours}.project.{PARAM}"),
            *conv_module(f"decode_head.{block}.bottleneck", f"{_HEAD}.{block}.bottleneck"),
        ]
    return rules


_SIGNATURE = ("backbone.layer1.0.conv1.weight", "decode_head.conv_seg.weight")

V1D = Source(
    name="mmseg-v1d",
    title="mmsegmentation with a ResNet-V1d",
    signature=(*_SIGNATURE, "backbone.layer2.0.downsample.2.weight"),
    rules=partial(_rules, pooled=True),
    settings={"MODEL.RESNETS.SHORTCUT": "avg_pool"},
    told=openmmlab_meta.settings,
)
SOURCE = Source(
    name="mmseg",
    title="mmsegmentation",
    signature=_SIGNATURE,
    rules=partial(_rules, pooled=False),
    told=openmmlab_meta.settings,
)
