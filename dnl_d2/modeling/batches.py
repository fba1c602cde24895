"""Predicting many images at once without letting them change each other's results."""

from typing import Any

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
