"""Checkpoints of MMDetection 2.x and 3.x: Faster, Mask and Cascade R-CNN with GC or NL inserts."""

from dnl_d2.checkpoint.keymap import Rule, State
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.detection import (
    GLOBAL_CONTEXT,
    NON_LOCAL,
    SETTINGS,
    detector_rules,
    told,
)


def _rules(state: State) -> list[Rule]:
    return detector_rules(
        state, (GLOBAL_CONTEXT, NON_LOCAL), roi="roi_head.", background_first=False
    )


SOURCE = Source(
    name="mmdet",
    title="MMDetection 2.x or 3.x",
    signature=(
        "backbone.layer1.0.conv1.weight",
        "neck.fpn_convs.0.conv.weight",
        "rpn_head.rpn_conv.weight",
        "roi_head.bbox_head.{any:*}",
    ),
    rules=_rules,
    settings=SETTINGS,
    told=told,
)
