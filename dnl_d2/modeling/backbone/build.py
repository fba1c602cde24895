"""One builder for every ResNet of this library: YAML and LazyConfig both end here."""

from functools import partial
from typing import Any

from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from dnl_d2.layers.norms import get_norm
from dnl_d2.layers.signatures import takes_fields_of
from dnl_d2.modeling.backbone.residual import ContextBasicBlock, ContextBottleneckBlock
from dnl_d2.modeling.backbone.resnet import ContextResNet
from dnl_d2.modeling.backbone.resnet_options import ResNetOptions
from dnl_d2.modeling.backbone.stem import STEMS


@takes_fields_of(ResNetOptions)
def build_context_resnet(**options: Any) -> ContextResNet:
    """Builds a ResNet or ResNeXt with context blocks in any of its residual blocks.

    Args:
        options: the fields of :class:`~dnl_d2.modeling.backbone.resnet_options.ResNetOptions`.

    Raises:
        UsageError: an option out of range, or an insert where there is no block.
    """
    described = ResNetOptions(**options)
    stages = _build_stages(described)  # first: a seed gives the weights that it always gave
    stem = STEMS[described.stem](
        in_channels=described.in_channels,
        out_channels=described.stem_out_channels,
        norm=partial(get_norm, described.norm),
    )
    return ContextResNet(
        stem,
        stages,
        out_features=described.out_features,
        freeze_at=described.freeze_at,
        mask_padding=described.mask_padding,
        padded_to=described.padded_to,
    )


def _build_stages(options: ResNetOptions) -> list[list[nn.Module]]:
    channels = options.stem_out_channels
    out_channels = options.res2_out_channels or (64 if options.basic else 256)
    bottleneck = options.num_groups * options.width_per_group
    block = ContextBasicBlock if options.basic else ContextBottleneckBlock
    stages = []
    for stage, count in options.num_blocks.items():
        arguments = _of_every_block(options, stage)
        if not options.basic:
            arguments |= _of_bottlenecks(options, stage) | {"bottleneck_channels": bottleneck}
        stages.append(
            ResNet.make_stage(
                block, count, in_channels=channels, out_channels=out_channels, **arguments
            )
        )
        channels, out_channels, bottleneck = out_channels, out_channels * 2, bottleneck * 2
    return stages


def _of_every_block(options: ResNetOptions, stage: str) -> dict[str, Any]:
    count, placed = options.num_blocks[stage], options.placed.get(stage, ())
    return {
        "stride_per_block": [options.stride(stage)] + [1] * (count - 1),
        "dilation_per_block": options.dilations(stage),
        "context_per_block": [options.context if i in placed else None for i in range(count)],
        "position": options.position,
        "shortcut": options.shortcut,
        "norm": partial(get_norm, options.norm),
    }


def _of_bottlenecks(options: ResNetOptions, stage: str) -> dict[str, Any]:
    return {
        "num_groups": options.num_groups,
        "stride_in_1x1": options.stride_in_1x1,
        "deform": stage in options.deform_on,
        "deform_modulated": options.deform_modulated,
        "deform_num_groups": options.deform_num_groups,
    }
