"""Two-stage detectors of MMDetection: what its versions, and repositories built on it, share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnl_d2.checkpoint.describe import openmmlab_meta
from dnl_d2.checkpoint.keymap import PARAM, Rule, State, has, matching
from dnl_d2.checkpoint.sources.mmseg import conv_module, global_context_rules, non_local_rules
from dnl_d2.checkpoint.sources.resnet import openmmlab_rules
from dnl_d2.errors import UsageError

# What all their files have; the box head is under another name in each.
SIGNATURE = (
    "backbone.layer1.0.conv1.weight",
    "neck.fpn_convs.0.conv.weight",
    "rpn_head.rpn_conv.weight",
)
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
    told = openmmlab_meta.stride(rest)
    if shown.get("MODEL.ROI_HEADS.NAME") == "CascadeROIHeads":
        told["MODEL.ROI_HEADS.NAME"] = "MeanCascadeROIHeads"
    return told


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


def detector_rules(state: State, *, inserts: Sequence[Insert], legacy: bool) -> list[Rule]:
    """All rules of a Faster, Mask or Cascade R-CNN with FPN.

    Args:
        state: public or ours.
        inserts: the kinds of blocks that the code base has, the more telling ones first.
        legacy: whether it is from before MMDetection 2.0: class 0 is the background, with box and
            mask regressors that nothing ever uses, and no ``roi_head.`` is before the RoI heads.

    Raises:
        UsageError: a block or head that this library cannot have.
    """
    rpn, roi = "proposal_generator.rpn_head", "" if legacy else "roi_head."
    return [
        *_backbone_rules(state, inserts),
        *conv_module("neck.lateral_convs.{i}", "backbone.fpn_lateral{i+2}"),
        *conv_module("neck.fpn_convs.{i}", "backbone.fpn_output{i+2}"),
        Rule(f"rpn_head.rpn_conv.{PARAM}", f"{rpn}.conv.{PARAM}"),
        Rule(f"rpn_head.rpn_cls.{PARAM}", f"{rpn}.objectness_logits.{PARAM}"),
        Rule(f"rpn_head.rpn_reg.{PARAM}", f"{rpn}.anchor_deltas.{PARAM}"),
        *_box_rules(state, f"{roi}bbox_head", legacy),
        *_mask_rules(state, f"{roi}mask_head", legacy),
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
    return [
        *openmmlab_rules(state),
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


def _box_rules(state: State, public: str, legacy: bool) -> list[Rule]:
    head, predictor = "roi_heads.box_head", "roi_heads.box_predictor"
    if has(state, f"{public}.{{k}}.{{any:*}}", f"{head}.{{k}}.{{any:*}}"):
        for key in matching(state, f"{public}.{{k}}.fc_reg.weight"):
            if len(state[key]) != 4:
                raise UsageError(
                    f"{key!r}: boxes are regressed by class, but Detectron2's cascade has one "
                    "regressor for all classes (reg_class_agnostic=True)"
                )
        public, head, predictor = f"{public}.{{k}}", f"{head}.{{k}}", f"{predictor}.{{k}}"
    # The background's score goes to the end.
    roll = partial(torch.roll, dims=0)
    classes = (partial(roll, shifts=-1), partial(roll, shifts=1)) if legacy else (None, None)
    boxes = _without_background(4) if legacy else (None, None)
    return [
        *conv_module(f"{public}.shared_convs.{{i}}", f"{head}.conv{{i+1}}"),
        Rule(f"{public}.shared_fcs.{{i}}.{PARAM}", f"{head}.fc{{i+1}}.{PARAM}"),
        Rule(f"{public}.fc_cls.{PARAM}", f"{predictor}.cls_score.{PARAM}", *classes),
        Rule(f"{public}.fc_reg.{PARAM}", f"{predictor}.bbox_pred.{PARAM}", *boxes),
    ]


def _mask_rules(state: State, public: str, legacy: bool) -> list[Rule]:
    head = "roi_heads.mask_head"
    if has(state, f"{public}.{{k}}.{{any:*}}", f"{head}.{{k}}.{{any:*}}"):
        public, head = f"{public}.{{k}}", f"{head}.{{k}}"
    masks = _without_background(1) if legacy else (None, None)
    return [
        *conv_module(f"{public}.convs.{{i}}", f"{head}.mask_fcn{{i+1}}"),
        Rule(f"{public}.upsample.{PARAM}", f"{head}.deconv.{PARAM}"),
        Rule(f"{public}.conv_logits.{PARAM}", f"{head}.predictor.{PARAM}", *masks),
    ]


def _without_background(size: int) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Drops the first of the regressors, each of ``size`` rows, and puts zeros back there.

    One regressor alone is for all classes, and stays.
    """

    def drop(rows: Tensor) -> Tensor:
        return rows if len(rows) == size else rows[size:].clone()

    def put_back(rows: Tensor) -> Tensor:
        return rows if len(rows) == size else torch.cat([torch.zeros_like(rows[:size]), rows])

    return drop, put_back
