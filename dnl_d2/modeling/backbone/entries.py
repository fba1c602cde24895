"""The backbones by the names that YAML configs give to MODEL.BACKBONE.NAME."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from dnl_d2.config.keys import context_block_spec
from dnl_d2.errors import UsageError
from dnl_d2.modeling.backbone.build import build_context_resnet
from dnl_d2.modeling.backbone.padding import mask_only_visible_padding
from dnl_d2.modeling.backbone.resnet import ContextResNet
from dnl_d2.modeling.backbone.resnet_options import STAGES, built_stages


@BACKBONE_REGISTRY.register()
def build_context_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ContextResNet:
    """YAML entry: reads MODEL.RESNETS, MODEL.BACKBONE.FREEZE_AT and calls build_context_resnet."""
    resnet = cfg.MODEL.RESNETS
    deform = list(resnet.DEFORM_ON_PER_STAGE)
    if len(deform) != len(STAGES) or not all(isinstance(on, bool) for on in deform):
        raise UsageError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE {deform}: four values, True or False, for "
            f"{', '.join(STAGES)}"
        )
    output_stride, halve, multi_grid = _dilation(resnet)
    built = built_stages(resnet.OUT_FEATURES)  # flags of later stages have no effect
    inserts = {s: list(resnet.CONTEXT_STAGES[s.upper()]) for s in STAGES}
    backbone = build_context_resnet(
        depth=resnet.DEPTH,
        in_channels=input_shape.channels,
        stem=resnet.STEM_TYPE,
        stem_out_channels=resnet.STEM_OUT_CHANNELS,
        res2_out_channels=resnet.RES2_OUT_CHANNELS,
        num_groups=resnet.NUM_GROUPS,
        width_per_group=resnet.WIDTH_PER_GROUP,
        stride_in_1x1=resnet.STRIDE_IN_1X1,
        output_stride=output_stride,
        halve_first_dilation=halve,
        multi_grid=multi_grid,
        shortcut=resnet.SHORTCUT,
        deform_on=[stage for stage, on in zip(built, deform, strict=False) if on],
        deform_modulated=resnet.DEFORM_MODULATED,
        deform_num_groups=resnet.DEFORM_NUM_GROUPS,
        norm=resnet.NORM,
        out_features=resnet.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        context=context_block_spec(resnet.CONTEXT),
        inserts={stage: where for stage, where in inserts.items() if where},
        position=resnet.CONTEXT_POSITION,
        mask_padding=resnet.CONTEXT_MASK_PADDING,
        padded_to=_padded_to(cfg),
    )
    mask_only_visible_padding(backbone, "MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN)
    return backbone


def _padded_to(cfg: CfgNode) -> int:
    """Models without FPN do not pad a single image; Panoptic-DeepLab does, by a key of its own."""
    if cfg.MODEL.META_ARCHITECTURE != "PanopticDeepLab":
        return 1
    return max(1, cfg.MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY)


def _dilation(resnet: CfgNode) -> tuple[int, bool, Sequence[int]]:
    """Output stride, halve_first_dilation and multi_grid of MODEL.RESNETS.

    They come from OUTPUT_STRIDE, a key of this library, or from Detectron2's RES5_DILATION: 2
    ("DC5") and, in its DeepLab project, RES4_DILATION: 2 with RES5_DILATION: 4. RES5_MULTI_GRID of
    that project has an effect only beside these dilations.
    """
    by_stage = (resnet.get("RES4_DILATION", 1), resnet.RES5_DILATION)
    if by_stage != (1, 1) and resnet.OUTPUT_STRIDE != 32:
        raise UsageError(
            f"MODEL.RESNETS.OUTPUT_STRIDE {resnet.OUTPUT_STRIDE} and RES5_DILATION "
            f"{resnet.RES5_DILATION} both dilate: set one of them"
        )
    if by_stage == (1, 1):
        return resnet.OUTPUT_STRIDE, resnet.HALVE_FIRST_DILATION, ()
    strides = {(1, 2): 16, (2, 4): 8}
    if by_stage not in strides:
        raise UsageError(
            f"MODEL.RESNETS.RES5_DILATION {by_stage[1]} with RES4_DILATION {by_stage[0]}: use 1 "
            "or 2 with 1, 4 with 2, or OUTPUT_STRIDE"
        )
    return strides[by_stage], False, resnet.get("RES5_MULTI_GRID", ())


@BACKBONE_REGISTRY.register()
def build_context_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """YAML entry: Detectron2's FPN over :func:`build_context_resnet_backbone`."""
    return _build_fpn(cfg, build_context_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_context_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """YAML entry: RetinaNet's FPN, whose p6 and p7 are convolutions of res5."""
    resnet = build_context_resnet_backbone(cfg, input_shape)
    shapes = resnet.output_shape()
    if "res5" not in shapes:
        raise UsageError("MODEL.RESNETS.OUT_FEATURES: RetinaNet's FPN needs res5")
    top_block = LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)
    return _build_fpn(cfg, resnet, top_block)


def _build_fpn(cfg: CfgNode, bottom_up: ContextResNet, top_block: nn.Module) -> FPN:
    missing = [f for f in cfg.MODEL.FPN.IN_FEATURES if f not in bottom_up.output_shape()]
    if missing:
        raise UsageError(
            f"MODEL.FPN.IN_FEATURES has {', '.join(missing)}, which MODEL.RESNETS.OUT_FEATURES "
            f"{list(cfg.MODEL.RESNETS.OUT_FEATURES)} lacks"
        )
    if not cfg.MODEL.FPN.IN_FEATURES:
        raise UsageError("MODEL.FPN.IN_FEATURES is empty: name stages, or a backbone without FPN")
    fpn = FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
    bottom_up.padded_to = fpn.size_divisibility
    return fpn
