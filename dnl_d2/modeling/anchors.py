"""The anchors of MMDetection 1.x, whose boxes include their last pixel."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import (
    ANCHOR_GENERATOR_REGISTRY,
    BufferList,
    DefaultAnchorGenerator,
)
from torch import Tensor


@ANCHOR_GENERATOR_REGISTRY.register()
class LegacyAnchorGenerator(DefaultAnchorGenerator):
    """Anchors of MMDetection 1.x: corners are whole pixels, and the last pixel belongs to the box.

    The anchors of a cell are centred on its pixels, of which there are ``stride`` in each
    direction, and then rounded. Here the right and lower edge lie one pixel further, so that width
    is ``x2 - x1`` as everywhere in Detectron2. MODEL.ANCHOR_GENERATOR.OFFSET has no effect.

    Args:
        sizes, aspect_ratios, strides: as Detectron2's.
    """

    @configurable
    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
    ):
        super().__init__(sizes=sizes, aspect_ratios=aspect_ratios, strides=strides, offset=0.0)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        options = super().from_config(cfg, input_shape)
        del options["offset"]
        return options

    def _calculate_anchors(
        self, sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]]
    ) -> BufferList:
        anchors = super()._calculate_anchors(sizes, aspect_ratios)
        for level, stride in enumerate(self.strides):
            setattr(anchors, str(level), _to_pixels(getattr(anchors, str(level)), stride))
        return anchors


def _to_pixels(anchors: Tensor, stride: int) -> Tensor:
    """``(A, 4)`` anchors around 0 -> around the middle of a cell, on whole pixels."""
    last = torch.tensor([0.0, 0.0, 1.0, 1.0])
    middle = (stride - 1) / 2
    return (anchors + middle + 0.5 - last).round() + last
