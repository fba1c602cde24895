"""Checkpoints of GCNet's detection repository, and of MMDetection 1.x, on which it is built."""

from dnl_d2.checkpoint.keymap import Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.detection import (
    GLOBAL_CONTEXT,
    LEGACY_SETTINGS,
    detector_rules,
    told,
)


def _rules(state: State) -> list[Rule]:
    return detector_rules(state, (GLOBAL_CONTEXT,), roi="", background_first=True)


SOURCE = Source(
    name="gcnet",
    title="GCNet's detection repository or MMDetection 1.x",
    signature=(
        "backbone.layer1.0.conv1.weight",
        "neck.fpn_convs.0.conv.weight",
        "rpn_head.rpn_conv.weight",
        "bbox_head.{any:*}",
    ),
    rules=_rules,
    settings=LEGACY_SETTINGS,
    told=told,
)
