"""Batches of images: of one size, padded for a backbone, without changing each other's results."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from torch import Tensor, nn


class SameSizeBatches(nn.Module):
    """A Detectron2 model that predicts an image together with images of its own size only.

    Detectron2 pads a batch to its largest image, and near the border of a smaller one convolutions,
    RoIAlign and anchors see that padding. In batches of one size an image's result is the one it
    has alone, up to rounding. Batches in training are passed on as they are.

    Args:
        model: takes a list of dicts with ``"image"`` ``(C, H, W)`` and returns a list.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[Any]:
        """Losses in training, otherwise one result per image, in the order of the images."""
        if self.model.training:
            return self.model(batched_inputs)
        groups: dict[Any, list[int]] = {}
        for index, inputs in enumerate(batched_inputs):
            # One picture at several scales ("images") is a group of its own.
            size = inputs["image"].shape if "image" in inputs else index
            groups.setdefault(size, []).append(index)
        results: list[Any] = [None] * len(batched_inputs)
        for indices in groups.values():
            predicted = self.model([batched_inputs[i] for i in indices])
            for index, result in zip(indices, predicted, strict=True):
                results[index] = result
        return results


def stacked(arrays: Sequence[Tensor], size: Sequence[int], value: float) -> Tensor:
    """``(*, H, W)`` images or label maps -> one tensor, each in its upper left corner.

    Args:
        arrays: of one type and device.
        size: (height, width) of the result, as large as the largest.
        value: of what lies below and on the right.
    """
    height, width = size
    margins = ((0, width - a.shape[-1], 0, height - a.shape[-2]) for a in arrays)
    return torch.stack(
        [F.pad(a, m, value=value) if any(m) else a for a, m in zip(arrays, margins, strict=True)]
    )


def padded_size(backbone: Backbone, size: Sequence[int]) -> tuple[int, int]:
    """The (height, width) that a backbone needs for images of ``size``, as ``ImageList`` pads.

    Args:
        backbone: with ``size_divisibility`` and ``padding_constraints``.
        size: (height, width).
    """
    needs = backbone.padding_constraints
    divisor = max(needs.get("size_divisibility", backbone.size_divisibility), 1)
    square = needs.get("square_size", 0)
    height, width = (-(-(square or side) // divisor) * divisor for side in size)
    return height, width


def padded_for(backbone: Backbone, images: Tensor) -> Tensor:
    """Normalised images of one size, with the zeros below and on the right that a backbone needs.

    As ``ImageList.from_tensors`` of Detectron2, but computed on sizes alone: a graph of
    :mod:`torch.export` then serves every size.

    Args:
        backbone: see :func:`padded_size`.
        images: ``(N, C, H, W)``.
    """
    size = images.shape[-2:]
    below, right = (a - b for a, b in zip(padded_size(backbone, size), size, strict=True))
    any_size = padded_size(backbone, (1, 1)) == (1, 1)
    return images if any_size else F.pad(images, (0, right, 0, below))


def cropped(maps: Tensor, size: Sequence[int]) -> Tensor:
    """The upper left ``size`` (height, width) of larger ``(N, K, H, W)`` maps."""
    height, width = size
    if not torch.compiler.is_compiling():
        return maps[..., :height, :width]
    # A graph would remember whether this slice of the traced size was contiguous.
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))
