"""Checkpoints of PyTorchVideo's ``slow_r50``."""

from dnl_d2.checkpoint import PARAM, Rule, Source, State
from dnl_d2_kinetics.sources.rules import FACEBOOK_RGB, conv_norm

_BLOCK, _OURS = "blocks.{s}.res_blocks.{b}", "backbone.res{s+1}.{b}"


def _rules(state: State) -> list[Rule]:
    convolutions = [
        rule
        for number, letter in enumerate("abc", start=1)
        for rule in conv_norm(
            f"{_BLOCK}.branch2.conv_{letter}",
            f"{_BLOCK}.branch2.norm_{letter}",
            f"{_OURS}.conv{number}",
        )
    ]
    return [
        *conv_norm("blocks.0.conv", "blocks.0.norm", "backbone.stem.conv1"),
        *convolutions,
        *conv_norm(f"{_BLOCK}.branch1_conv", f"{_BLOCK}.branch1_norm", f"{_OURS}.shortcut"),
        Rule(f"blocks.5.proj.{PARAM}", f"classifier.{PARAM}"),
    ]


SOURCE = Source(
    name="pytorchvideo-slow",
    title="a slow ResNet of PyTorchVideo",
    signature=("blocks.0.conv.weight", "blocks.1.res_blocks.0.branch2.conv_a.weight"),
    rules=_rules,
    input_format=FACEBOOK_RGB,
)
