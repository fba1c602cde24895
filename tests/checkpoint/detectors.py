"""Detectron2 models for converted detectors, and what is compared about them."""

import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from dnl_d2.checkpoint.convert import convert, fit_backbone
from dnl_d2.checkpoint.describe.architecture import build_config
from tests.checkpoint.models import TWO_STAGES, assert_near

# Keys that all published detectors share.
COMMON = TWO_STAGES | {
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ROI_HEADS.NUM_CLASSES": 5,
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
    given = source.input_format
    pixels = {"MODEL.PIXEL_MEAN": list(given.mean), "MODEL.PIXEL_STD": list(given.std)}
    merged = COMMON | pixels | source.settings
    for keys in settings:
        merged |= keys
    return build_model(build_config(merged)).eval()


def load(model: nn.Module, file: dict[str, Tensor], source) -> dict[str, Tensor]:
    """Loads all of a public file strictly; returns it converted."""
    converted = convert(file, source)
    assert not converted.unexpected and not converted.dropped
    model.load_state_dict(fit_backbone(converted.state, model.state_dict()))
    return converted.state


@torch.no_grad()
def assert_same_levels(ours: nn.Module, theirs: nn.Module, image: Tensor) -> None:
    """The feature maps of the FPN."""
    found, wanted = ours.backbone(image).values(), theirs.extract_feat(image)
    for mine, level in zip(found, wanted, strict=True):
        assert_near(mine, level)


@torch.no_grad()
def assert_same_heads(ours: nn.Module, theirs: nn.Module, generator: torch.Generator) -> None:
    """Outputs of all RoI heads, stage by stage, on random RoI features."""
    boxes, masks = (torch.randn(5, 256, s, s, generator=generator) for s in (7, 14))
    mine, roi = ours.roi_heads, theirs.roi_head
    for head, predictor, box_head in zip(
        *map(_stages, (mine.box_head, mine.box_predictor, roi.bbox_head)), strict=True
    ):
        for found, wanted in zip(predictor(head(boxes)), box_head(boxes), strict=True):
            assert_near(found, wanted)
    for head, mask_head in zip(*map(_stages, (mine.mask_head, roi.mask_head)), strict=True):
        assert_near(head.layers(masks), mask_head(masks))


def _stages(head: nn.Module) -> list[nn.Module]:
    return list(head) if isinstance(head, nn.ModuleList) else [head]
