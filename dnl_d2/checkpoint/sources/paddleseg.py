"""Checkpoints of PaddleSeg 2.x: DNLNet, GCNet and ANN on ResNet-vd, and bare ResNet-vd.

PaddleSeg's convolutions before a norm have a bias in GCNet and ANN. Ours have none: the bias is
taken off the running mean, which is the same network, in training too.
"""

from collections.abc import Callable

from torch import Tensor

from dnl_d2.checkpoint.keymap import PARAM, Rule, State
from dnl_d2.checkpoint.source import InputFormat, Source

_HEAD, _AUXILIARY = "sem_seg_head", "sem_seg_head.auxiliary"
_FORMAT = InputFormat("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
# No parameter shows these. The first block of a dilated stage has the dilation of the others.
_RESNET_VD = {
    "MODEL.RESNETS.SHORTCUT": "avg_pool",
    "MODEL.RESNETS.HALVE_FIRST_DILATION": False,
}
_SETTINGS: dict[str, dict[str, object]] = {
    "dnl": {
        "MODEL.SEM_SEG_HEAD.CONTEXT.PRESET": "paddleseg",
        "MODEL.SEM_SEG_HEAD.HALF_PIXEL_CENTERS": False,
    },
    "gcnet": {},
    "ann": {"MODEL.SEM_SEG_HEAD.DROPOUT": 0.05},
}


def _prepare(state: State) -> dict[str, Tensor]:
    """Moves the bias of each convolution that a norm follows into that norm's running mean."""
    result = dict(state)
    for key, bias in state.items():
        mean = key.removesuffix("_conv.bias") + "_batch_norm._mean"
        if key.endswith("_conv.bias") and mean in state:
            result[mean] = state[mean] - bias
            del result[key]
    return result


def _conv_norm(public: str, ours: str) -> list[Rule]:
    norm = f"{public}._batch_norm"
    return [
        Rule(f"{public}._conv.weight", f"{ours}.weight"),
        Rule(f"{norm}.{PARAM}", f"{ours}.norm.{PARAM}"),
        Rule(f"{norm}._mean", f"{ours}.norm.running_mean"),
        Rule(f"{norm}._variance", f"{ours}.norm.running_var"),
    ]


def _conv(public: str, ours: str) -> list[Rule]:
    return [Rule(f"{public}.{PARAM}", f"{ours}.{PARAM}")]


def _resnet_vd(public: str = "backbone.") -> list[Rule]:
    block, res = f"{public}bb_{{s}}_{{b}}", "backbone.res{s+2}.{b}"
    return [
        *_conv_norm(f"{public}conv1_{{i}}", "backbone.stem.conv{i}"),
        *_conv_norm(f"{block}.conv{{i}}", f"{res}.conv{{i+1}}"),
        *_conv_norm(f"{block}.short", f"{res}.shortcut"),
    ]


def _dnl_head() -> list[Rule]:
    block = f"{_HEAD}.context_block"
    return [
        *_conv_norm("head.conv{i}", f"{_HEAD}.convs.{{i}}"),
        *_conv("head.dnl_block.theta", f"{block}.query"),
        *_conv("head.dnl_block.phi", f"{block}.key"),
        *_conv("head.dnl_block.g", f"{block}.value"),
        *_conv("head.dnl_block.conv_mask", f"{block}.unary"),
        *_conv_norm("head.dnl_block.conv_out", f"{block}.project"),
        *_conv_norm("head.conv_cat", f"{_HEAD}.fuse"),
        *_conv("head.cls.1", f"{_HEAD}.predictor"),
        *_conv_norm("head.aux.0", f"{_AUXILIARY}.convs.0"),
        *_conv("head.aux.2", f"{_AUXILIARY}.predictor"),
    ]


def _gc_head() -> list[Rule]:
    transform, block = "head.gc_block.channel_add_conv", f"{_HEAD}.context_block"
    return [
        *_conv_norm("head.conv_bn_relu1", f"{_HEAD}.convs.0"),
        *_conv("head.gc_block.conv_mask", f"{block}.unary"),
        # Paddle's layer norm over (C', 1, 1) stores vectors.
        Rule(
            f"{transform}.1.{PARAM}",
            f"{block}.channel_add.1.{PARAM}",
            to_ours=lambda t: t.reshape(-1, 1, 1),
            to_public=lambda t: t.flatten(),
        ),
        *[rule for i in (0, 3) for rule in _conv(f"{transform}.{i}", f"{block}.channel_add.{i}")],
        *_conv_norm("head.conv_bn_relu2", f"{_HEAD}.convs.1"),
        *_conv_norm("head.conv_bn_relu3", f"{_HEAD}.fuse"),
        *_conv("head.conv", f"{_HEAD}.predictor"),
        *_auxiliary_layer(),
    ]


def _ann_head() -> list[Rule]:
    rules = [
        *_conv_norm("head.context.0", f"{_HEAD}.bottleneck.1"),
        *_conv("head.cls", f"{_HEAD}.predictor"),
        *_auxiliary_layer(),
    ]
    for public, ours in (("head.fusion", "fusion"), ("head.context.1", "context")):
        stage, attend = f"{public}.stages.0", f"{_HEAD}.{ours}.attend"
        rules += [
            *_conv_norm(f"{stage}.f_key", f"{attend}.key"),
            # In the pyramid block the query projection is the key's under a second name.
            *_conv_norm(f"{stage}.f_query", f"{attend}.{'query' if ours == 'fusion' else 'key'}"),
            *_conv(f"{stage}.f_value", f"{attend}.value"),
            *_conv(f"{stage}.W", f"{attend}.project"),
            *_conv_norm(f"{public}.conv_bn", f"{_HEAD}.{ours}.bottleneck"),
        ]
    return rules


def _auxiliary_layer() -> list[Rule]:
    return [
        *_conv_norm("head.auxlayer.conv_bn_relu", f"{_AUXILIARY}.convs.0"),
        *_conv("head.auxlayer.conv", f"{_AUXILIARY}.predictor"),
    ]


def _bare_rules(state: State) -> list[Rule]:
    return [*_resnet_vd(""), Rule(f"out.{PARAM}", None, why="ImageNet classifier")]


def _source(name: str, title: str, telling: str, head: Callable[[], list[Rule]]) -> Source:
    return Source(
        name=f"paddleseg-{name}",
        title=f"PaddleSeg's {title}",
        signature=("backbone.conv1_1._conv.weight", telling),
        rules=lambda state: [*_resnet_vd(), *head()],
        input_format=_FORMAT,
        prepare=_prepare,
        settings=_RESNET_VD | _SETTINGS[name],
    )


SOURCES = (
    _source("dnl", "DNLNet", "head.dnl_block.g.weight", _dnl_head),
    _source("gcnet", "GCNet", "head.gc_block.conv_mask.weight", _gc_head),
    _source("ann", "ANN", "head.fusion.stages.0.W.weight", _ann_head),
    Source(
        name="paddleseg-backbone",
        title="a bare ResNet-vd of PaddleSeg or PaddleClas",
        signature=("conv1_1._conv.weight", "bb_0_0.conv0._conv.weight"),
        rules=_bare_rules,
        settings=_RESNET_VD,
    ),
)
