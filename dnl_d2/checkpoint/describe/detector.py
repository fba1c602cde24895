"""Telling the heads of a detector from some weights."""

from dnl_d2.checkpoint.describe.backbone import fpn_levels
from dnl_d2.checkpoint.describe.parameters import Keys, Settings
from dnl_d2.errors import UsageError

_RATIOS = [0.5, 1.0, 2.0]


def detector_settings(keys: Keys) -> Settings:
    """MODEL.RPN, MODEL.ANCHOR_GENERATOR and MODEL.ROI_* of the weights of a two-stage detector."""
    cascade = keys.has("roi_heads.box_head.0.")
    stage = ".0" if cascade else ""
    box, predictor = f"roi_heads.box_head{stage}", f"roi_heads.box_predictor{stage}"
    classes = keys.out(f"{predictor}.cls_score.weight") - 1
    agnostic = keys.out(f"{predictor}.bbox_pred.weight") == 4
    settings = {
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads" if cascade else "StandardROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": agnostic,
    }
    return settings | _box_head(keys, box) | _mask_head(keys, classes) | _levels(keys)


def _box_head(keys: Keys, box: str) -> Settings:
    convs, fcs = (
        sum(keys.has(f"{box}.{kind}{i}.") for i in range(1, 9)) for kind in ("conv", "fc")
    )
    settings = {
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.NUM_FC": fcs,
        "MODEL.ROI_BOX_HEAD.FC_DIM": keys.out(f"{box}.fc1.weight"),
        "MODEL.ROI_BOX_HEAD.NUM_CONV": convs,
    }
    if convs:
        settings |= {
            "MODEL.ROI_BOX_HEAD.CONV_DIM": keys.out(f"{box}.conv1.weight"),
            "MODEL.ROI_BOX_HEAD.NORM": keys.norm(f"{box}.conv1"),
        }
    return settings


def _mask_head(keys: Keys, classes: int) -> Settings:
    mask = "roi_heads.mask_head"
    if not keys.has(f"{mask}."):
        return {"MODEL.MASK_ON": False}
    several = keys.has(f"{mask}.0.")
    mask = f"{mask}.0" if several else mask
    convs = sum(keys.has(f"{mask}.mask_fcn{i}.") for i in range(1, 9))
    agnostic = keys.out(f"{mask}.predictor.weight") == 1 and classes > 1
    return {
        "MODEL.MASK_ON": True,
        "MODEL.ROI_MASK_HEAD.NAME": "MeanMaskHead" if several else "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": convs,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": keys.out(f"{mask}.mask_fcn1.weight"),
        "MODEL.ROI_MASK_HEAD.NORM": keys.norm(f"{mask}.mask_fcn1"),
        "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": agnostic,
    }


def _levels(keys: Keys) -> Settings:
    """Where the heads of a detector look: on all levels, as published ones do."""
    levels = fpn_levels(keys)
    if not levels:
        raise UsageError("a detector without an FPN")
    pooled = [*levels, levels[-1] + 1]
    per_cell = keys.out("proposal_generator.rpn_head.objectness_logits.weight")
    ratios = _RATIOS if per_cell % len(_RATIOS) == 0 else [1.0]
    steps = per_cell // len(ratios)
    return {
        "MODEL.RPN.IN_FEATURES": [f"p{level}" for level in pooled],
        # 32 on p2; where a cell has several, they divide the octave.
        "MODEL.ANCHOR_GENERATOR.SIZES": [
            [round(8 * 2 ** (level + step / steps)) for step in range(steps)] for level in pooled
        ],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios],
        "MODEL.ROI_HEADS.IN_FEATURES": [f"p{level}" for level in levels],
    }
