"""Telling from weights which model they belong to, as the YAML keys that build it."""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

import dnl_d2.modeling  # noqa: F401  (registers what the models are built from)
from dnl_d2.checkpoint.describe.parameters import Keys
from dnl_d2.checkpoint.keymap import State
from dnl_d2.config.keys import add_dnl_config
from dnl_d2.errors import UsageError, building

_BASIC = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BOTTLENECK = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_RATIOS = [0.5, 1.0, 2.0]

Settings = dict[str, Any]


def infer_settings(state: State) -> Settings:
    """The YAML keys of the model that weights of ours belong to.

    What no parameter shows (dilation, corners of the resize, temperature; anchors but for their
    number, pooling, the FPN levels that heads read) is left at what the published models of that
    kind have.

    Args:
        state: parameters with this library's names; a bare backbone will do.

    Raises:
        UsageError: there is no ResNet in it, or it has an unknown number of blocks.
    """
    keys = Keys(state)
    settings = _backbone(keys)
    if keys.has("sem_seg_head.predictor.weight"):
        settings |= {"MODEL.META_ARCHITECTURE": "ContextSegmentor"} | _segmentation(keys)
        settings |= {"MODEL.RESNETS.OUTPUT_STRIDE": 8}
    elif keys.has("roi_heads."):
        settings |= {"MODEL.META_ARCHITECTURE": "GeneralizedRCNN"} | _detection(keys)
    return settings


def describe(state: State) -> str:
    """The model of some weights in words, also where there is no telling."""
    try:
        return title(infer_settings(state))
    except UsageError as error:
        return f"an unknown model ({error})"


def title(settings: Settings) -> str:
    """A model in words, such as ``ResNet-50 (v1c stem), DNL head, 19 classes``."""
    get = settings.get
    kind = "ResNeXt" if get("MODEL.RESNETS.NUM_GROUPS", 1) > 1 else "ResNet"
    words = [
        f"{kind}-{settings['MODEL.RESNETS.DEPTH']} ({settings['MODEL.RESNETS.STEM_TYPE']} stem)"
    ]
    inserted = get("MODEL.RESNETS.CONTEXT.NAME")
    if inserted:
        words.append(f"{inserted.upper()} blocks in the backbone")
    if get("MODEL.SEM_SEG_HEAD.NAME") == "AsymmetricHead":
        words.append("ANN head")
    elif "MODEL.SEM_SEG_HEAD.NAME" in settings:
        words.append(f"{get('MODEL.SEM_SEG_HEAD.CONTEXT.NAME', 'FCN').upper()} head")
    if "MODEL.ROI_HEADS.NAME" in settings:
        cascade = "Cascade " if "Cascade" in settings["MODEL.ROI_HEADS.NAME"] else ""
        words.append(f"{cascade}{'Mask' if get('MODEL.MASK_ON') else 'Faster'} R-CNN")
    classes = get("MODEL.SEM_SEG_HEAD.NUM_CLASSES", get("MODEL.ROI_HEADS.NUM_CLASSES"))
    if classes is not None:
        words.append(f"{classes} classes")
    return ", ".join(words)


def build_config(settings: Settings) -> CfgNode:
    """Detectron2's defaults with this library's keys and ``settings``."""
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def expected_parameters(settings: Settings) -> dict[str, Tensor]:
    """Names and shapes of a model's parameters and buffers, without memory for them."""
    cfg = build_config(settings)
    cfg.MODEL.DEVICE = "meta"
    with building("the model that the weights seem to be of"), torch.device("meta"):
        if "MODEL.META_ARCHITECTURE" in settings:
            return build_model(cfg).state_dict()
        backbone = build_backbone(cfg, ShapeSpec(channels=3)).state_dict()
    return {f"backbone.{key}": value for key, value in backbone.items()}


def nested(settings: Settings) -> dict[str, Any]:
    """``{"A.B": 1}`` -> ``{"A": {"B": 1}}``, to be written as YAML."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _fpn_levels(keys: Keys) -> list[int]:
    """The stages of the ResNet that an FPN stands on."""
    return [level for level in (2, 3, 4, 5) if keys.has(f"backbone.fpn_output{level}.")]


def _backbone(keys: Keys) -> Settings:
    fpn = keys.has("backbone.bottom_up.") or keys.has("backbone.fpn_")
    levels = _fpn_levels(keys)
    if fpn and not levels:
        raise UsageError("the weights lack 'backbone.fpn_output2.weight' to fpn_output5")
    features = [f"res{level}" for level in levels]
    root = "backbone.bottom_up." if keys.has("backbone.bottom_up.") else "backbone."
    counts = tuple(keys.count(f"{root}res{s}.") for s in (2, 3, 4, 5))
    bottleneck = keys.has(f"{root}res2.0.conv3.")
    depth = (_BOTTLENECK if bottleneck else _BASIC).get(counts)
    if depth is None:
        raise UsageError(
            f"a ResNet with {', '.join(map(str, counts))} blocks in res2 to res5: truncated, or of "
            "a depth other than 18, 34, 50, 101, 152"
        )
    last = "conv3" if bottleneck else "conv2"
    deep = keys.has(f"{root}stem.conv3.")
    name = "build_context_resnet_fpn_backbone" if fpn else "build_context_resnet_backbone"
    settings = {
        "MODEL.BACKBONE.NAME": name,
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.STEM_TYPE": "v1c" if deep else "basic",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": keys.out(f"{root}stem.conv{3 if deep else 1}.weight"),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": keys.out(f"{root}res2.0.{last}.weight"),
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.NORM": keys.norm(f"{root}stem.conv1") or "",
        "MODEL.RESNETS.OUT_FEATURES": features if fpn else ["res4", "res5"],
    }
    if bottleneck:
        width = keys.out(f"{root}res2.0.conv2.weight")
        groups = width // keys.into(f"{root}res2.0.conv2.weight")
        settings |= {
            "MODEL.RESNETS.NUM_GROUPS": groups,
            "MODEL.RESNETS.WIDTH_PER_GROUP": width // groups,
        }
    if fpn:
        settings |= {
            "MODEL.FPN.IN_FEATURES": features,
            "MODEL.FPN.OUT_CHANNELS": keys.out(f"backbone.fpn_output{levels[0]}.weight"),
            "MODEL.FPN.NORM": keys.norm(f"backbone.fpn_output{levels[0]}"),
        }
    return settings | _deformable(keys, root) | _inserts(keys, root, counts)


def _deformable(keys: Keys, root: str) -> Settings:
    on = [keys.has(f"{root}res{s}.0.conv2_offset.") for s in (2, 3, 4, 5)]
    if not any(on):
        return {}
    channels = keys.out(f"{root}res{on.index(True) + 2}.0.conv2_offset.weight")
    # 2 or, modulated, 3 numbers for each of the 9 taps. 54 is taken for 2 modulated groups.
    modulated = channels % 27 == 0
    return {
        "MODEL.RESNETS.DEFORM_ON_PER_STAGE": on,
        "MODEL.RESNETS.DEFORM_MODULATED": modulated,
        "MODEL.RESNETS.DEFORM_NUM_GROUPS": channels // (27 if modulated else 18),
    }


def _inserts(keys: Keys, root: str, counts: tuple[int, ...]) -> Settings:
    placed = {
        f"RES{s}": [b for b in range(n) if keys.has(f"{root}res{s}.{b}.context.")]
        for s, n in zip((2, 3, 4, 5), counts, strict=True)
    }
    first = next(((s, blocks[0]) for s, blocks in placed.items() if blocks), None)
    if first is None:
        return {}
    settings = {f"MODEL.RESNETS.CONTEXT_STAGES.{s}": b for s, b in placed.items() if b}
    block = f"{root}{first[0].lower()}.{first[1]}.context"
    arguments = _block(keys, block)
    if arguments.get("PRESET") == "paper-det":
        settings["MODEL.RESNETS.CONTEXT_POSITION"] = "after_add"
    return settings | {f"MODEL.RESNETS.CONTEXT.{k}": v for k, v in arguments.items()}


def _block(keys: Keys, block: str) -> Settings:
    """NAME and arguments of the context block with these parameters."""
    transforms = [t for t in ("add", "mul") if keys.has(f"{block}.channel_{t}.")]
    if transforms:
        first = f"{block}.channel_{transforms[0]}.0.weight"
        return {
            "NAME": "gc",
            "RATIO": keys.out(first) / keys.into(first),
            "POOLING": "att" if keys.has(f"{block}.unary.") else "avg",
            "FUSION": transforms,
        }
    if not keys.has(f"{block}.query.") and keys.has(f"{block}.unary."):
        return {"NAME": "snl", "NORM": keys.norm(f"{block}.value")}
    projected = keys.has(f"{block}.project.")
    norm = keys.norm(f"{block}.project" if projected else block)
    if keys.has(f"{block}.gamma"):
        in_backbone = not block.startswith("sem_seg_head")
        return {
            "NAME": "dnl",
            "PRESET": "paper-det" if in_backbone else "paper-seg",
            "REDUCTION": _reduction(keys, f"{block}.query.weight"),
            "NORM": norm,
            "PROJECT": projected,
            "UNARY": keys.has(f"{block}.unary."),
        }
    if keys.has(f"{block}.unary."):
        reduction = _reduction(keys, f"{block}.query.weight")
        return {"NAME": "dnl", "PRESET": "mmseg", "REDUCTION": reduction, "NORM": norm}
    reduction = _reduction(keys, f"{block}.value.weight")
    settings = {"NAME": "nl", "REDUCTION": reduction, "NORM": norm}
    if not keys.has(f"{block}.query."):
        settings["MODE"] = "gaussian"
    elif keys.has(f"{block}.concat."):
        settings["MODE"] = "concatenation"
    return settings


def _reduction(keys: Keys, projection: str) -> int:
    return keys.into(projection) // keys.out(projection)


def _segmentation(keys: Keys) -> Settings:
    head = "sem_seg_head"
    settings = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": keys.out(f"{head}.predictor.weight"),
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": keys.into(f"{head}.predictor.weight"),
    }
    if keys.has(f"{head}.fusion."):
        settings |= {
            "MODEL.SEM_SEG_HEAD.NAME": "AsymmetricHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res4", "res5"],
            "MODEL.SEM_SEG_HEAD.NORM": keys.norm(f"{head}.bottleneck.1"),
            "MODEL.SEM_SEG_HEAD.ASYMMETRIC.PROJECT_CHANNELS": keys.out(
                f"{head}.context.attend.value.weight"
            ),
        }
    else:
        settings |= {
            "MODEL.SEM_SEG_HEAD.NAME": "ContextHead",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
            "MODEL.SEM_SEG_HEAD.NORM": keys.norm(f"{head}.convs.0"),
            "MODEL.SEM_SEG_HEAD.NUM_CONVS": keys.count(f"{head}.convs."),
            "MODEL.SEM_SEG_HEAD.CONCAT_INPUT": keys.has(f"{head}.fuse."),
        }
    if keys.has(f"{head}.context_block."):
        block = _block(keys, f"{head}.context_block")
        settings |= {f"MODEL.SEM_SEG_HEAD.CONTEXT.{k}": v for k, v in block.items()}
    auxiliary = f"{head}.auxiliary"
    if keys.has(f"{auxiliary}."):
        settings |= {
            "MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT": 0.4,
            "MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": keys.into(f"{auxiliary}.predictor.weight"),
            "MODEL.SEM_SEG_HEAD.AUXILIARY.NUM_CONVS": keys.count(f"{auxiliary}.convs."),
            "MODEL.SEM_SEG_HEAD.AUXILIARY.CONCAT_INPUT": keys.has(f"{auxiliary}.fuse."),
        }
    return settings


def _detection(keys: Keys) -> Settings:
    cascade = keys.has("roi_heads.box_head.0.")
    box, predictor = (
        f"roi_heads.{part}.0" if cascade else f"roi_heads.{part}"
        for part in ("box_head", "box_predictor")
    )
    classes = keys.out(f"{predictor}.cls_score.weight") - 1
    convs = sum(keys.has(f"{box}.conv{i}.") for i in range(1, 9))
    fcs = sum(keys.has(f"{box}.fc{i}.") for i in range(1, 9))
    mask = "roi_heads.mask_head"
    several = keys.has(f"{mask}.0.")
    mask = f"{mask}.0" if several else mask
    settings = {
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads" if cascade else "StandardROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.NUM_FC": fcs,
        "MODEL.ROI_BOX_HEAD.FC_DIM": keys.out(f"{box}.fc1.weight"),
        "MODEL.ROI_BOX_HEAD.NUM_CONV": convs,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": keys.out(f"{predictor}.bbox_pred.weight") == 4,
        "MODEL.MASK_ON": keys.has(f"{mask}."),
    }
    if convs:
        settings |= {
            "MODEL.ROI_BOX_HEAD.CONV_DIM": keys.out(f"{box}.conv1.weight"),
            "MODEL.ROI_BOX_HEAD.NORM": keys.norm(f"{box}.conv1"),
        }
    if settings["MODEL.MASK_ON"]:
        settings |= {
            "MODEL.ROI_MASK_HEAD.NAME": "MeanMaskHead" if several else "MaskRCNNConvUpsampleHead",
            "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
            "MODEL.ROI_MASK_HEAD.NUM_CONV": sum(
                keys.has(f"{mask}.mask_fcn{i}.") for i in range(1, 9)
            ),
            "MODEL.ROI_MASK_HEAD.CONV_DIM": keys.out(f"{mask}.mask_fcn1.weight"),
            "MODEL.ROI_MASK_HEAD.NORM": keys.norm(f"{mask}.mask_fcn1"),
            "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": keys.out(f"{mask}.predictor.weight") == 1
            and classes > 1,
        }
    return settings | _levels(keys)


def _levels(keys: Keys) -> Settings:
    """Where the heads of a detector look: on all levels, as published ones do."""
    levels = _fpn_levels(keys)
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
