"""Detectron2 models for converted detectors, and what is compared about them."""

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

import dnl_d2.modeling.anchors
import dnl_d2.modeling.roi_heads  # noqa: F401
from dnl_d2 import add_dnl_config

LEVELS = ["p2", "p3", "p4", "p5"]
# Keys that all published detectors share.
COMMON = {
    "MODEL.DEVICE": "cpu",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_context_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RPN.IN_FEATURES": [*LEVELS, "p6"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
    "MODEL.ROI_HEADS.NUM_CLASSES": 5,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "INPUT.FORMAT": "RGB",
}
CONV_HEAD = {
    "MODEL.FPN.NORM": "BN",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "BN",
    "MODEL.ROI_MASK_HEAD.NORM": "BN",
}
GC = {
    "MODEL.RESNETS.CONTEXT.NAME": "gc",
    "MODEL.RESNETS.CONTEXT.RATIO": 1 / 16,
    "MODEL.RESNETS.CONTEXT_STAGES.RES3": ["all"],
    "MODEL.RESNETS.CONTEXT_STAGES.RES4": ["all"],
    "MODEL.RESNETS.CONTEXT_STAGES.RES5": ["all"],
}
# ResNeXt 32x4d, r4, Cascade Mask R-CNN
GC_CASCADE = {
    **GC,
    "MODEL.RESNETS.CONTEXT.RATIO": 1 / 4,
    "MODEL.RESNETS.NUM_GROUPS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.ROI_HEADS.NAME": "MeanCascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_MASK_HEAD.NAME": "MeanMaskHead",
}


def build(source, *settings: dict) -> nn.Module:
    """A model in evaluation mode for files of ``source``, untrained."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    given = source.input_format
    pixels = {"MODEL.PIXEL_MEAN": list(given.mean), "MODEL.PIXEL_STD": list(given.std)}
    for keys in (COMMON, pixels, source.settings, *settings):
        cfg.merge_from_list([part for pair in keys.items() for part in pair])
    return build_model(cfg).eval()


def assert_near(ours: Tensor, theirs: Tensor, bar: float = 1e-4) -> None:
    """The largest difference is at most ``bar`` times the largest value."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference <= bar, f"relative difference {difference:.1e}"


def head_outputs(model: nn.Module, boxes: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Outputs of all RoI heads, stage by stage, on given RoI features."""
    roi = model.roi_heads
    cascade = isinstance(roi.box_head, nn.ModuleList)
    box_heads = roi.box_head if cascade else [roi.box_head]
    predictors = roi.box_predictor if cascade else [roi.box_predictor]
    mask_heads = roi.mask_head if isinstance(roi.mask_head, nn.ModuleList) else [roi.mask_head]
    outputs = {}
    with torch.no_grad():
        for k, (head, predictor) in enumerate(zip(box_heads, predictors, strict=True)):
            outputs[f"classes {k}"], outputs[f"boxes {k}"] = predictor(head(boxes))
        for k, head in enumerate(mask_heads):
            outputs[f"masks {k}"] = head.layers(masks)
    return outputs
