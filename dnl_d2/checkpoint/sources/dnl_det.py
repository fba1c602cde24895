"""Checkpoints of DNL's detection repository (built on MMDetection 1.x): NL, GC, SNL and DNL."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dnl_d2.checkpoint.keymap import PARAM, Rule, State, matching
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources import gcnet
from dnl_d2.checkpoint.sources.detection import (
    GLOBAL_CONTEXT,
    LEGACY_SETTINGS,
    NON_LOCAL,
    Insert,
    detector_rules,
    insert_names,
    told,
)
from dnl_d2.checkpoint.sources.dnl_seg import disentangled_rules

_ABN_EPS = 1e-5
_BLOCK = "backbone.layer{s}.{b}"


def _simplified_rules(public: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{public}.conv_value.{PARAM}", f"{ours}.value.{PARAM}"),
        Rule(f"{public}.conv_mask.{PARAM}", f"{ours}.unary.{PARAM}"),
    ]


_DISENTANGLED = Insert("nl_gc_block", "gamma", disentangled_rules)
_SIMPLIFIED = Insert("context_block", "unary.weight", _simplified_rules)
_INSERTS = (_DISENTANGLED, NON_LOCAL, GLOBAL_CONTEXT, _SIMPLIFIED)


def _prepare(state: State) -> dict[str, Tensor]:
    """Spells out what these files leave unsaid, in terms of ordinary layers.

    The norms of the published models are In-Place ABN with identity activation, which scales by
    |weight| + eps and, in the version of that time, counts no batches: that is how they are told
    from batch norms. And their SNL has no bias in the value projection.
    """
    prepared = dict(state)
    if _has_abn(state):
        for key in matching(state, "{norm:*}.running_var"):
            name = key.removesuffix("running_var")
            prepared[f"{name}weight"] = state[f"{name}weight"].abs() + _ABN_EPS
            prepared[f"{name}num_batches_tracked"] = torch.tensor(0)
    for key in matching(state, f"{_BLOCK}.context_block.conv_value.weight"):
        weight = state[key]
        prepared.setdefault(f"{key.removesuffix('weight')}bias", weight.new_zeros(len(weight)))
    return prepared


def _has_abn(state: State) -> bool:
    norms = matching(state, "{norm:*}.running_var")
    return bool(norms) and not matching(state, "{norm:*}.num_batches_tracked")


@dataclass(frozen=True)
class _Source(Source):
    """MMDetection 1.x with a block that only this repository has, or with its norms."""

    def recognises(self, state: State) -> bool:
        if not super().recognises(state):
            return False
        names = insert_names(state)
        own = {"nl_gc_block", "nonlocal_block"} & names
        simplified = matching(state, f"{_BLOCK}.context_block.conv_value.weight")
        return bool(own or simplified) or _has_abn(state)


SOURCE = _Source(
    name="dnl-det",
    title="DNL's detection repository",
    signature=gcnet.SOURCE.signature,
    rules=partial(detector_rules, inserts=_INSERTS, legacy=True),
    prepare=_prepare,
    settings=LEGACY_SETTINGS | {"MODEL.RESNETS.CONTEXT_POSITION": "after_add"},
    told=told,
)
