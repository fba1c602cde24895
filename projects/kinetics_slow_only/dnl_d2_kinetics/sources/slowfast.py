"""Checkpoints of PySlowFast's ``Slow`` models."""

from dnl_d2.checkpoint import PARAM, Rule, Source, State
from dnl_d2_kinetics.sources.rules import FACEBOOK_RGB, conv_norm

_BLOCK, _OURS = "s{s}.pathway0_res{b}", "backbone.res{s}.{b}"


def _rules(state: State) -> list[Rule]:
    convolutions = [
        rule
        for number, letter in enumerate("abc", start=1)
        for rule in conv_norm(
            f"{_BLOCK}.branch2.{letter}", f"{_BLOCK}.branch2.{letter}_bn", f"{_OURS}.conv{number}"
        )
    ]
    return [
        *conv_norm("s1.pathway0_stem.conv", "s1.pathway0_stem.bn", "backbone.stem.conv1"),
        *convolutions,
        *conv_norm(f"{_BLOCK}.branch1", f"{_BLOCK}.branch1_bn", f"{_OURS}.shortcut"),
        Rule(f"head.projection.{PARAM}", f"classifier.{PARAM}"),
        # Its pooling comes before the projections of keys and values, ours after them.
        Rule("s{s}.pathway0_nonlocal{b}.{any:*}", None, why="a non-local block unlike ours"),
    ]


SOURCE = Source(
    name="slowfast-slow",
    title="a Slow model of PySlowFast",
    signature=("s1.pathway0_stem.conv.weight", "s2.pathway0_res0.branch2.a.weight"),
    rules=_rules,
    input_format=FACEBOOK_RGB,
)
