"""Saying in words what a state dict seems to be and what became of its keys."""

from collections.abc import Sequence

from dnl_d2.checkpoint.keymap import Converted, State, matching

# Telling keys of models that this library does not have.
_OTHERS = (
    ("decode_head.psp_modules.{any:*}", "mmsegmentation's PSPNet"),
    ("decode_head.c1_bottleneck.{any:*}", "mmsegmentation's DeepLabV3+"),
    ("decode_head.aspp_modules.{any:*}", "mmsegmentation's DeepLabV3"),
    ("decode_head.cca.{any:*}", "mmsegmentation's CCNet"),
    ("decode_head.pam.{any:*}", "mmsegmentation's DANet"),
    ("decode_head.object_context_block.{any:*}", "mmsegmentation's OCRNet"),
    ("decode_head.fpn_convs.{any:*}", "mmsegmentation's UPerNet"),
    ("decode_head.{any:*}", "an mmsegmentation model with a head this library does not have"),
    ("{any:*}stage2.0.branches.{rest:*}", "an HRNet"),
    ("sem_seg_head.predictor.query_{any:*}", "Mask2Former"),
    ("{any:*}layers.0.blocks.0.attn.relative_position_bias_table", "a Swin Transformer"),
    ("layers.0.blocks.0.attn.relative_position_bias_table", "a Swin Transformer"),
    ("{any:*}class_embed.{rest:*}", "a detection transformer (DETR family)"),
    ("{any:*}blocks.0.attn.qkv.weight", "a Vision Transformer"),
    ("blocks.0.attn.qkv.weight", "a Vision Transformer"),
    ("{any:*}.attn.{rest:*}", "a transformer"),
    ("{any:*}.self_attn.{rest:*}", "a transformer"),
    ("model.model.0.{any:*}", "a YOLO detector"),
    ("features.0.weight", "a VGG or AlexNet classifier"),
    ("features.0.0.weight", "a MobileNet or EfficientNet classifier"),
    ("proposal_generator.anchor_generator.{any:*}", "a two-stage detector of Detectron2"),
    ("head.cls_subnet.{any:*}", "Detectron2's RetinaNet"),
    ("bbox_head.retina_cls.{any:*}", "MMDetection's RetinaNet"),
    ("backbone.conv1.weight", "a ResNet with a head this library does not have"),
    ("{any:*}layer1.0.conv1.weight", "a ResNet under a name this library does not know"),
)


def name_unknown(state: State) -> str:
    """What a state dict of another model seems to be, with its size and some of its keys."""
    size = f"{len(state)} tensors, such as {', '.join(map(repr, list(state)[:2]))}"
    for template, title in _OTHERS:
        if matching(state, template):
            return f"it seems to be {title} ({size})"
    return f"its keys are of no model known here ({size})"


def shorten(keys: Sequence[str], count: int = 3) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


def group_dropped(converted: Converted) -> dict[str, list[str]]:
    """Why keys have no counterpart -> those keys."""
    groups: dict[str, list[str]] = {}
    for key, why in converted.dropped.items():
        groups.setdefault(why or "not needed", []).append(key)
    return groups
