"""Checkpoints of mmaction2's slow-only ResNets, with and without its non-local blocks."""

from torch import Tensor

from dnl_d2.checkpoint import NORM, PARAM, Rule, Source, State
from dnl_d2_kinetics.sources.rules import conv_norm

_BLOCK, _OURS = "backbone.layer{s}.{b}", "backbone.res{s+1}.{b}"
_PROJECTIONS = {"theta": "query", "phi": "key", "g": "value"}


def _to_2d(weight: Tensor) -> Tensor:
    """A 1x1x1 kernel as ours, which serve maps of every rank."""
    return weight[..., 0] if weight.dim() == 5 else weight


def _to_3d(weight: Tensor) -> Tensor:
    return weight[..., None] if weight.dim() == 4 else weight


def _non_local_rules() -> list[Rule]:
    public, ours = f"{_BLOCK}.non_local_block", f"{_OURS}.context"
    names = {
        f"{name}{pooled}": mine for name, mine in _PROJECTIONS.items() for pooled in ("", ".0")
    }
    # With sub_sample, pooling is number 1 of a sequence, and the projection its number 0.
    return [
        *(
            Rule(f"{public}.{name}.conv.{PARAM}", f"{ours}.{mine}.{PARAM}", _to_2d, _to_3d)
            for name, mine in names.items()
        ),
        Rule(f"{public}.conv_out.conv.{PARAM}", f"{ours}.project.{PARAM}", _to_2d, _to_3d),
        Rule(f"{public}.conv_out.bn.{NORM}", f"{ours}.project.norm.{NORM}"),
    ]


def _rules(state: State) -> list[Rule]:
    return [
        *conv_norm("backbone.conv1.conv", "backbone.conv1.bn", "backbone.stem.conv1"),
        *conv_norm(f"{_BLOCK}.conv{{i}}.conv", f"{_BLOCK}.conv{{i}}.bn", f"{_OURS}.conv{{i}}"),
        *conv_norm(f"{_BLOCK}.downsample.conv", f"{_BLOCK}.downsample.bn", f"{_OURS}.shortcut"),
        *_non_local_rules(),
        Rule(f"cls_head.fc_cls.{PARAM}", f"classifier.{PARAM}"),
        Rule("data_preprocessor.{any:*}", None, why="part of the config"),
    ]


SOURCE = Source(
    name="mmaction2-slowonly",
    title="an mmaction2 slow-only ResNet",
    signature=("backbone.conv1.conv.weight", "backbone.layer1.0.conv1.conv.weight"),
    rules=_rules,
)
