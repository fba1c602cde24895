"""Checkpoints of the ANN authors' repository, whose convolutions have biases before norms."""

import torch
from torch import Tensor

from dnl_d2.checkpoint.keymap import NORM, PARAM, Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.torchcv import (
    INPUT_FORMAT,
    SETTINGS,
    backbone_rules,
    stem_signature,
)
from dnl_d2.errors import UsageError

_HEAD, _AUXILIARY = "sem_seg_head", "sem_seg_head.auxiliary"
_FUSION, _CONTEXT = "fusion.stages.0", "context.2.stages.0"
_BIASED = ("fusion", "context", "dsn")  # top-level modules with biases before norms

# Convolution and norm, by the Sequential they are in -> ours.
_CONVS = {
    f"{_FUSION}.f_key": f"{_HEAD}.fusion.attend.key",
    f"{_FUSION}.f_query": f"{_HEAD}.fusion.attend.query",
    "context": f"{_HEAD}.bottleneck.1",
    f"{_CONTEXT}.f_key": f"{_HEAD}.context.attend.key",
    f"{_CONTEXT}.f_query": f"{_HEAD}.context.attend.key",  # the same module once more
    "context.2.conv_bn_dropout": f"{_HEAD}.context.bottleneck",
    "dsn": f"{_AUXILIARY}.convs.0",
}
_PLAIN = {
    f"{_FUSION}.f_value": f"{_HEAD}.fusion.attend.value",
    f"{_FUSION}.W": f"{_HEAD}.fusion.attend.project",
    f"{_CONTEXT}.f_value": f"{_HEAD}.context.attend.value",
    f"{_CONTEXT}.W": f"{_HEAD}.context.attend.project",
    "cls": f"{_HEAD}.predictor",
    "dsn.3": f"{_AUXILIARY}.predictor",
}


def _rules(state: State) -> list[Rule]:
    rules = backbone_rules(state)
    for public, ours in _CONVS.items():
        rules += _conv_norm(public, f"{public}.1.0", ours)
    # Without activation, so the norm is not in a Sequential of its own.
    fuse = "fusion.conv_bn_dropout"
    rules += _conv_norm(fuse, f"{fuse}.1", f"{_HEAD}.fusion.bottleneck")
    return rules + [Rule(f"{p}.{PARAM}", f"{o}.{PARAM}") for p, o in _PLAIN.items()]


def _conv_norm(public: str, norm: str, ours: str) -> list[Rule]:
    """A convolution and its norm; the bias is in the norm's mean, and zero on the way back."""
    mean = f"{ours}.norm.running_mean"
    return [
        Rule(f"{public}.0.weight", f"{ours}.weight"),
        Rule(f"{norm}.{NORM}", f"{ours}.norm.{NORM}"),
        Rule(f"{public}.0.bias", mean, to_ours=_unfolded, to_public=torch.zeros_like),
    ]


def _unfolded(bias: Tensor) -> Tensor:
    raise UsageError("the file has a convolution's bias but not the mean of the norm after it")


def _prepare(state: State) -> dict[str, Tensor]:
    """Takes the bias of every convolution that a batch norm follows into the norm's mean.

    norm(W x + b) with the running mean m is norm(W x) with m - b. In training the mean of the batch
    takes b out as well, so nothing but the parameter that had no effect goes.

    In each ``nn.Sequential`` a norm, alone or in a Sequential of its own, has the number after that
    of its convolution.
    """
    folded = dict(state)
    for key, bias in state.items():
        *path, number, name = ["", *key.rsplit(".", 2)]
        if name != "bias" or not number.isdigit() or key.split(".")[0] not in _BIASED:
            continue
        after = ".".join([*path[1:], str(int(number) + 1)])
        for mean in (f"{after}.running_mean", f"{after}.0.running_mean"):
            if mean in state:
                folded[mean] = state[mean] - bias
                del folded[key]
    return folded


SOURCE = Source(
    name="ann",
    title="the ANN authors' repository",
    signature=(
        stem_signature(),
        f"{_FUSION}.f_key.0.weight",
        f"{_CONTEXT}.f_key.0.weight",
    ),
    rules=_rules,
    input_format=INPUT_FORMAT,
    prepare=_prepare,
    settings=SETTINGS | {"MODEL.SEM_SEG_HEAD.DROPOUT": 0.05},
)
