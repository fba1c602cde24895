"""Small models for the tests of loading and converting."""

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from dnl_d2.checkpoint.describe.architecture import build_config

SEGMENTOR = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "ContextSegmentor",
    "INPUT.MIN_SIZE_TEST": 0,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.BACKBONE.NAME": "build_context_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STEM_TYPE": "v1c",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.OUT_FEATURES": ["res4", "res5"],
    "MODEL.RESNETS.OUTPUT_STRIDE": 8,
    "MODEL.SEM_SEG_HEAD.NAME": "ContextHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 16,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.CONTEXT.NAME": "dnl",
    "MODEL.SEM_SEG_HEAD.CONTEXT.NORM": "BN",
    "MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT": 0.4,
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": 8,
    "INPUT.FORMAT": "RGB",
}

# What all detectors here share, small ones and those of public files.
TWO_STAGES = {
    "MODEL.DEVICE": "cpu",
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_context_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
}
DETECTOR = TWO_STAGES | {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
}


def assert_near(ours: Tensor, theirs: Tensor, bar: float = 1e-4) -> None:
    """The largest difference is at most ``bar`` times the largest value."""
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference <= bar, f"relative difference {difference:.1e}"


def assert_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """The same names with the same values, bit by bit."""
    torch.testing.assert_close(dict(found), dict(wanted), rtol=0, atol=0)


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds the counters of batches, which some code bases do not have."""
    means = [key for key in state if key.endswith("running_mean")]
    counters = [key.replace("running_mean", "num_batches_tracked") for key in means]
    return {**state, **dict.fromkeys(counters, torch.tensor(0))}


def config(base: dict, **changes) -> CfgNode:
    """``base`` with changes, ``__`` in their names standing for a dot."""
    return build_config(base | {key.replace("__", "."): value for key, value in changes.items()})


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for what starts as zeros or ones, so that nothing can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.rand(value.shape, generator=generator)
            if value.dim() < 2 or not value.any():
                value.copy_(0.5 + noise)
            else:
                value.add_((noise - 0.5) * value.std())
            assert torch.isfinite(value).all(), key
    return model.eval()


def build(base: dict, seed: int = 0, **changes) -> nn.Module:
    """A randomised model of :func:`config`."""
    torch.manual_seed(seed)
    return randomised(build_model(config(base, **changes)), seed)
