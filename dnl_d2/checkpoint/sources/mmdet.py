"""Checkpoints of MMDetection 2.x and 3.x: Faster, Mask and Cascade R-CNN with GC or NL inserts."""

from functools import partial

from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.detection import (
    GLOBAL_CONTEXT,
    NON_LOCAL,
    SETTINGS,
    SIGNATURE,
    detector_rules,
    told,
)

# As in Detectron2's own configs; the COCO recipes have what MMDetection did before 2.0.
_DETECTRON2S = {
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
}
SOURCE = Source(
    name="mmdet",
    title="MMDetection 2.x or 3.x",
    signature=(*SIGNATURE, "roi_head.bbox_head.{any:*}"),
    rules=partial(detector_rules, inserts=(GLOBAL_CONTEXT, NON_LOCAL), legacy=False),
    settings=SETTINGS | _DETECTRON2S,
    told=told,
)
