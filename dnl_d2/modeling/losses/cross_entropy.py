"""Cross entropy, with class weights and with online hard example mining."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.modeling.losses.segmentation_loss import SegmentationLoss

_AVERAGES = ("valid", "all")


class HardPixels:
    """Online hard example mining, arXiv 1604.03540, by pixels: which ones count.

    Same choice as mmsegmentation's ``OHEMPixelSampler``.

    Args:
        threshold: pixels count whose label has a smaller probability; None for no threshold.
        min_kept: pixels to keep, times the images of the batch: the threshold rises until that
            many lie below it; without a threshold those of largest loss are kept.
    """

    def __init__(self, *, threshold: float | None = 0.7, min_kept: int = 100000):
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise UsageError(
                f"OHEM: the threshold {threshold} is no probability: use 0 to 1, or None"
            )
        if min_kept < 1:
            raise UsageError(f"OHEM: min_kept={min_kept} pixels: use at least 1")
        self.threshold = threshold
        self.min_kept = min_kept

    @torch.no_grad()
    def __call__(self, logits: Tensor, targets: Tensor, losses: Tensor, valid: Tensor) -> Tensor:
        """A boolean ``(N, H, W)`` mask, found without waiting for a GPU to count pixels.

        Args:
            logits: ``(N, K, H, W)``.
            targets: ``(N, H, W)`` labels, any class where there is none.
            losses: ``(N, H, W)`` loss of each pixel.
            valid: ``(N, H, W)``, where there is a label.
        """
        kept = self.min_kept * len(targets)
        if self.threshold is None:
            of_labels = losses.masked_fill(~valid, -math.inf).flatten()
            hardest = of_labels.topk(min(kept, len(of_labels)), sorted=False).indices
            chosen = torch.zeros_like(valid).flatten().index_fill(0, hardest, True)
            return chosen.view_as(valid) & valid
        log_probability = -F.cross_entropy(logits, targets, reduction="none")
        ascending = log_probability.masked_fill(~valid, math.inf).flatten()
        least = ascending.kthvalue(min(kept + 1, len(ascending))).values
        # Where fewer pixels have a label than are to be kept: the largest of these.
        least = least.minimum(log_probability.masked_fill(~valid, -math.inf).amax())
        limit = math.log(self.threshold) if self.threshold else -math.inf
        return valid & (log_probability < least.clamp(min=limit))


class CrossEntropyLoss(SegmentationLoss):
    """Cross entropy over pixels: sum of w[y] (-log p[y]) / sum of w[y], w = 1 by default.

    Args:
        average: the pixels of the denominator: ``valid`` for those with a label, ``all`` for
            ignored ones too (with w = 1), as mmsegmentation does.
        class_weights: K factors w.
        ohem: which pixels have a loss. The others keep their place in the denominator, as in
            mmsegmentation.
        ignore_value, loss_weight: see :class:`SegmentationLoss`.
    """

    name = "cross_entropy"
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        average: str = "valid",
        class_weights: Sequence[float] | None = None,
        ohem: HardPixels | None = None,
    ):
        super().__init__(ignore_value=ignore_value, loss_weight=loss_weight)
        if average not in _AVERAGES:
            raise UsageError(f"loss average {average!r}: use one of {', '.join(_AVERAGES)}")
        self.average = average
        self.ohem = ohem
        weights = None
        if class_weights is not None:
            weights = torch.tensor(_checked(class_weights))
            self.num_classes = len(weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def compute(self, logits: Tensor, targets: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits,
            targets,
            self.weights(logits),
            ignore_index=self.ignore_value,
            reduction="sum" if self.ohem is None else "none",
        )
        valid, labels = self.labelled(targets)
        if self.ohem is not None:
            total = (total * self.ohem(logits, labels, total.detach(), valid)).sum()
        return total / self.divisor(self.factors(logits, valid, labels), valid)

    def weights(self, logits: Tensor) -> Tensor | None:
        """The class weights as the logits are: dtype and device."""
        return None if self.class_weights is None else self.class_weights.to(logits)

    def factors(self, logits: Tensor, valid: Tensor, labels: Tensor) -> Tensor:
        """w[y] of every pixel, 0 where there is no label; arguments as of :meth:`labelled`."""
        weights = self.weights(logits)
        return valid if weights is None else weights[labels] * valid

    def divisor(self, factors: Tensor, valid: Tensor) -> Tensor:
        """Sum of the factors of the pixels that ``average`` names, 1 if there are none."""
        count = factors.sum()
        if self.average == "all":
            count = count + (~valid).sum()
        return torch.where(count > 0, count, 1)


def _checked(class_weights: Sequence[float]) -> list[float]:
    weights = list(class_weights)
    numbers = all(isinstance(w, int | float) and 0 <= w < math.inf for w in weights)
    if not numbers or not any(weights):
        raise UsageError(f"class weights {weights}: use one number per class, none negative")
    return [float(w) for w in weights]
