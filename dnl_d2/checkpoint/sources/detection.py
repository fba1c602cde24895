"""Two-stage detectors of MMDetection: what its versions, and repositories built on it, share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dnl_d2.checkpoint.keymap import PARAM, Rule, State, matching
from dnl_d2.checkpoint.sources.mmseg import conv_module, global_context_rules, non_local_rules
from dnl_d2.checkpoint.sources.resnet import basic_stem_rules, deep_stem_rules, residual_rules
from dnl_d2.errors import UsageError

# Standard deviations of the box targets in its three cascade stages; Detectron2 multiplies by the
# inverses, and its own third ones are (30, 30, 15, 15).
_CASCADE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
SETTINGS = {
    "MODEL.RESNETS.CONTEXT_MASK_PADDING": False,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [
        [1 / std for std in stds] for stds in _CASCADE_STDS
    ],
}
# Before 2.0 the last pixel of a box belonged to it, anchors had whole-numbered corners, and
# RoIAlign took pixel i for the point i, not i + 0.5. In Detectron2's coordinates, where the box
# ends one pixel further, all else is equal (decoding of deltas, levels, suppression).
LEGACY_SETTINGS = SETTINGS | {
    "MODEL.ANCHOR_GENERATOR.NAME": "LegacyAnchorGenerator",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}


def told(rest: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """MMDetection's cascade is not quite Detectron2's, though their parameters are."""
    if shown.get("MODEL.ROI_HEADS.NAME") == "CascadeROIHeads":
        return {"MODEL.ROI_HEADS.NAME": "MeanCascadeROIHeads"}
    return {}


@dataclass(frozen=True)
class Insert:
    """A kind of block inside the residual blocks.

    Args:
        name: what the public code calls the submodule; configs may append a postfix to it.
        telling: template of a parameter of ours, under ``context``, that only this kind has.
        rules: public and our prefix -> rules.
    """

    name: str
    telling: str
    rules: Callable[[str, str], list[Rule]]


def _sub_sampled_rules(public: str, ours: str) -> list[Rule]:
    """NL with ``sub_sample``, where mmcv puts two projections into an ``nn.Sequential``."""
    return [
        *conv_module(f"{public}.g.0", f"{ours}.value"),
        *conv_module(f"{public}.phi.0", f"{ours}.key"),
    ]


GLOBAL_CONTEXT = Insert("context_block", "channel_{kind:add|mul}.{any:*}", global_context_rules)
NON_LOCAL = Insert("nonlocal_block", "project.{any:*}", non_local_rules)


def detector_rules(
    state: State, inserts: Sequence[Insert], *, roi: str, background_first: bool
) -> list[Rule]:
    """All rules of a Faster, Mask or Cascade R-CNN with FPN.

    Args:
        state: public or ours.
        inserts: the kinds of blocks that the code base has, the more telling ones first.
        roi: where the public keys of the RoI heads start: ``roi_head.`` or nothing.
        background_first: whether class 0 is the background, as before MMDetection 2.0; it has box
            and mask regressors there, which nothing ever uses.

    Raises:
        UsageError: a block or head that this library cannot have.
    """
    rpn = "proposal_generator.rpn_head"
    return [
        *_backbone_rules(state, inserts),
        *conv_module("neck.lateral_convs.{i}", "backbone.fpn_lateral{i+2}"),
        *conv_module("neck.fpn_convs.{i}", "backbone.fpn_output{i+2}"),
        Rule(f"rpn_head.rpn_conv.{PARAM}", f"{rpn}.conv.{PARAM}"),
        Rule(f"rpn_head.rpn_cls.{PARAM}", f"{rpn}.objectness_logits.{PARAM}"),
        Rule(f"rpn_head.rpn_reg.{PARAM}", f"{rpn}.anchor_deltas.{PARAM}"),
        *_box_rules(state, f"{roi}bbox_head", background_first),
        *_mask_rules(state, f"{roi}mask_head", background_first),
    ]


def insert_names(state: State) -> set[str]:
    """Names of the submodules of public residual blocks."""
    return {
        key.split(".")[3]
        for key in state
        if key.startswith("backbone.layer") and key.count(".") >= 4
    }


def _backbone_rules(state: State, inserts: Sequence[Insert]) -> list[Rule]:
    block, res = "backbone.layer{s}.{b}", "backbone.res{s+1}.{b}"
    old_offset = bool(matching(state, f"{block}.conv2_offset.{PARAM}"))
    offset = "conv2_offset" if old_offset else "conv2.conv_offset"
    deep = {"backbone.stem.0.weight", "backbone.stem.conv2.weight"} & set(state)
    return [
        *(deep_stem_rules("backbone.stem") if deep else basic_stem_rules("backbone.")),
        *residual_rules("backbone."),
        # (y, x) of each tap in turn, then (with modulation) the masks: Detectron2's order too.
        Rule(f"{block}.{offset}.{PARAM}", f"{res}.conv2_offset.{PARAM}"),
        *_insert_rules(state, inserts, block, f"{res}.context"),
    ]


def _insert_rules(state: State, inserts: Sequence[Insert], block: str, ours: str) -> list[Rule]:
    names = insert_names(state)
    if any(name.startswith("gen_attention_block") for name in names):
        raise UsageError(
            "the backbone has generalized attention (gen_attention_block), a block that this "
            "library does not have"
        )
    rules = []
    for insert in inserts:
        for name in sorted(n for n in names if n.startswith(insert.name)):
            rules += insert.rules(f"{block}.{name}", ours)
            if matching(state, f"{block}.{name}.g.0.conv.weight"):
                rules += _sub_sampled_rules(f"{block}.{name}", ours)
    if rules:
        return rules
    for insert in inserts:
        if matching(state, f"{ours}.{insert.telling}"):
            return insert.rules(f"{block}.{insert.name}", ours)
    return []


def _box_rules(state: State, public: str, background_first: bool) -> list[Rule]:
    head, predictor = "roi_heads.box_head", "roi_heads.box_predictor"
    cascade = any(matching(state, f"{name}.{{k}}.{{any:*}}") for name in (public, head))
    if cascade:
        for key in matching(state, f"{public}.{{k}}.fc_reg.weight"):
            if len(state[key]) != 4:
                raise UsageError(
                    f"{key!r}: boxes are regressed by class, but Detectron2's cascade has one "
                    "regressor for all classes (reg_class_agnostic=True)"
                )
        public, head, predictor = f"{public}.{{k}}", f"{head}.{{k}}", f"{predictor}.{{k}}"
    classes = (_background_last, _background_first) if background_first else (None, None)
    boxes = (_foreground_boxes, _with_background_boxes) if background_first else (None, None)
    return [
        *conv_module(f"{public}.shared_convs.{{i}}", f"{head}.conv{{i+1}}"),
        Rule(f"{public}.shared_fcs.{{i}}.{PARAM}", f"{head}.fc{{i+1}}.{PARAM}"),
        Rule(f"{public}.fc_cls.{PARAM}", f"{predictor}.cls_score.{PARAM}", *classes),
        Rule(f"{public}.fc_reg.{PARAM}", f"{predictor}.bbox_pred.{PARAM}", *boxes),
    ]


def _mask_rules(state: State, public: str, background_first: bool) -> list[Rule]:
    head = "roi_heads.mask_head"
    if any(matching(state, f"{name}.{{k}}.{{any:*}}") for name in (public, head)):
        public, head = f"{public}.{{k}}", f"{head}.{{k}}"
    masks = (_foreground_masks, _with_background_mask) if background_first else (None, None)
    return [
        *conv_module(f"{public}.convs.{{i}}", f"{head}.mask_fcn{{i+1}}"),
        Rule(f"{public}.upsample.{PARAM}", f"{head}.deconv.{PARAM}"),
        Rule(f"{public}.conv_logits.{PARAM}", f"{head}.predictor.{PARAM}", *masks),
    ]


def _background_last(rows: Tensor) -> Tensor:
    return rows.roll(-1, 0)


def _background_first(rows: Tensor) -> Tensor:
    return rows.roll(1, 0)


def _foreground_boxes(rows: Tensor) -> Tensor:
    """Four rows by class; four alone are a regressor for all classes."""
    return rows if len(rows) == 4 else rows[4:].clone()


def _with_background_boxes(rows: Tensor) -> Tensor:
    return rows if len(rows) == 4 else torch.cat([torch.zeros_like(rows[:4]), rows])


def _foreground_masks(rows: Tensor) -> Tensor:
    """One row by class; one alone is a mask for all classes."""
    return rows if len(rows) == 1 else rows[1:].clone()


def _with_background_mask(rows: Tensor) -> Tensor:
    return rows if len(rows) == 1 else torch.cat([torch.zeros_like(rows[:1]), rows])
