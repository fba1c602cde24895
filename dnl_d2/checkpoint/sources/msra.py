"""ImageNet ResNets with Caffe2's blob names: Detectron's and Detectron2's ``ImageNetPretrained``.

Most have their batch statistics multiplied into scale and shift.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dnl_d2.checkpoint.keymap import Rule, State, matching
from dnl_d2.checkpoint.source import CAFFE_BGR, Source

_NORM = "MODEL.RESNETS.NORM"
_PARTS = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}


def _prepare(state: State) -> dict[str, Tensor]:
    """Adds the statistics that Detectron2 takes where a file has none: mean 0, variance 1."""
    result = {}
    for key, value in state.items():
        result[key] = value
        if key.endswith("_bn_s"):
            stem = key.removesuffix("_s")
            if f"{stem}_rm" not in state:
                result[f"{stem}_rm"] = torch.zeros_like(value)
            if f"{stem}_riv" not in state:
                result[f"{stem}_riv"] = torch.ones_like(value)
    return result


def _rules(state: State) -> list[Rule]:
    kind = "gn" if matching(state, "{name:*}_gn_s") else "bn"
    stem_norm = "res_conv1_bn" if kind == "bn" else "conv1_gn"
    rules = [
        Rule("{name:*}_momentum", None, why="state of the optimizer"),
        Rule("{layer:fc1000|pred}_{p:w|b}", None, why="ImageNet classifier"),
        Rule("conv1_b", None, why="a bias before a norm, which Detectron2's ResNets do not have"),
        Rule("conv1_w", "backbone.stem.conv1.weight"),
    ]
    for part, ours in _PARTS.items():
        rules.append(Rule(f"{stem_norm}_{part}", f"backbone.stem.conv1.norm.{ours}"))
    for branch, conv in _BRANCHES.items():
        public, ours = f"res{{s}}_{{b}}_branch{branch}", f"backbone.res{{s}}.{{b}}.{conv}"
        rules.append(Rule(f"{public}_w", f"{ours}.weight"))
        rules += [
            Rule(f"{public}_{kind}_{part}", f"{ours}.norm.{name}") for part, name in _PARTS.items()
        ]
    return rules


def _told(rest: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """FAIR's ResNets, with groups of channels or group norm, stride in the 3x3 convolution."""
    of_fair = shown.get("MODEL.RESNETS.NUM_GROUPS", 1) > 1 or shown.get(_NORM) == "GN"
    return {"MODEL.RESNETS.STRIDE_IN_1X1": False} if of_fair else {}


SOURCE = Source(
    name="msra",
    title="an MSRA (Caffe2) ResNet",
    signature=("conv1_w", "res2_0_branch2a_w"),
    rules=_rules,
    input_format=CAFFE_BGR,
    prepare=_prepare,
    settings={"MODEL.RESNETS.STRIDE_IN_1X1": True},
    told=_told,
)
