"""The head of NL, GC, DNL, SNL, of the FCN baseline and of the auxiliary loss."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from dnl_d2.config.keys import context_block_spec
from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock, build_context_block
from dnl_d2.modeling.heads.segmentation_head import SegmentationHead, conv3x3
from dnl_d2.modeling.losses import CrossEntropyLoss


@SEM_SEG_HEADS_REGISTRY.register()
class ContextHead(SegmentationHead):
    """3x3 conv -> context block -> 3x3 convs -> 3x3 conv over [input, result] -> classifier.

    Without a block it is the FCN baseline; with one convolution and no concatenation, the
    auxiliary head. ``forward``, ``layers`` and ``losses`` are those of :class:`SegmentationHead`.

    Args:
        input_shape: the backbone's features.
        in_features: the one feature that this head reads.
        channels: width of the head.
        norm: norm of the convolutions.
        num_convs: 3x3 convolutions before the concatenation; the block follows the first.
        concat_input: whether the head's input joins its output before the classifier.
        context_block: what :func:`dnl_d2.layers.build_context_block` takes; None for FCN.
        options: num_classes, loss, loss_weight, dropout, align_corners and auxiliary, as in
            :class:`SegmentationHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: Sequence[str],
        channels: int = 512,
        norm: str = "SyncBN",
        num_convs: int = 2,
        concat_input: bool = True,
        context_block: str | Mapping[str, Any] | ContextBlock | None = None,
        **options: Any,
    ):
        super().__init__(input_shape, in_features=in_features, channels=channels, **options)
        if len(self.in_features) != 1:
            raise UsageError(f"ContextHead reads one feature, got in_features={self.in_features}")
        if num_convs < 1:
            raise UsageError(f"ContextHead needs num_convs of at least 1, got {num_convs}")
        in_channels = input_shape[self.in_features[0]].channels
        widths = [in_channels] + [channels] * num_convs
        self.convs = nn.ModuleList(conv3x3(i, o, norm) for i, o in pairwise(widths))
        self.context_block = build_context_block(context_block, channels)
        self.fuse = conv3x3(in_channels + channels, channels, norm) if concat_input else None

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        return super().from_config(cfg, input_shape) | {
            "num_convs": head.NUM_CONVS,
            "concat_input": head.CONCAT_INPUT,
            "context_block": context_block_spec(head.CONTEXT),
            "auxiliary": build_auxiliary_head(cfg, input_shape),
        }

    def decode(self, features: list[Tensor]) -> Tensor:
        (x,) = features
        out = self.convs[0](x)
        if self.context_block is not None:
            out = self.context_block(out)
        for conv in self.convs[1:]:
            out = conv(out)
        return out if self.fuse is None else self.fuse(torch.cat([x, out], 1))


def build_auxiliary_head(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> ContextHead | None:
    """The FCN head of MODEL.SEM_SEG_HEAD.AUXILIARY; None if its LOSS_WEIGHT is 0.

    Its loss is plain cross entropy in every published recipe, also where the head's own has class
    weights or more terms.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    auxiliary = head.AUXILIARY
    if not auxiliary.LOSS_WEIGHT:
        return None
    loss = CrossEntropyLoss(ignore_value=head.IGNORE_VALUE, average=head.LOSS_AVERAGE)
    options = SegmentationHead.from_config(cfg, input_shape) | {
        "in_features": auxiliary.IN_FEATURES,
        "channels": auxiliary.CONVS_DIM,
        "num_convs": auxiliary.NUM_CONVS,
        "concat_input": auxiliary.CONCAT_INPUT,
        "loss": loss,
        "loss_weight": auxiliary.LOSS_WEIGHT,
    }
    return ContextHead(**options)
