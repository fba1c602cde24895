"""Checkpoints of GCNet's detection repository, and of MMDetection 1.x, on which it is built."""

from functools import partial

from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.detection import (
    GLOBAL_CONTEXT,
    LEGACY_SETTINGS,
    SIGNATURE,
    detector_rules,
    told,
)

SOURCE = Source(
    name="gcnet",
    title="GCNet's detection repository or MMDetection 1.x",
    signature=(*SIGNATURE, "bbox_head.{any:*}"),
    rules=partial(detector_rules, inserts=(GLOBAL_CONTEXT,), legacy=True),
    settings=LEGACY_SETTINGS,
    told=told,
)
