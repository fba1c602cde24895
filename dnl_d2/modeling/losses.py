"""Losses of the segmentation heads: functions of full-size logits and label maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.functional import full_precision

_AVERAGES = ("valid", "all")


class CrossEntropyLoss(nn.Module):
    """Cross entropy over pixels, in fp32 (fp64 for fp64 logits).

    Args:
        ignore_value: label that takes no part.
        average: ``valid`` divides by the number of labelled pixels, ``all`` by the number of all
            pixels, ignored ones included, as mmsegmentation does.
    """

    def __init__(self, *, ignore_value: int = 255, average: str = "valid"):
        super().__init__()
        if average not in _AVERAGES:
            raise UsageError(f"loss average {average!r}: use one of {', '.join(_AVERAGES)}")
        self.ignore_value = ignore_value
        self.average = average

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``(N, K, H, W)`` logits, ``(N, H, W)`` labels -> a scalar; 0 if nothing is labelled."""
        (logits,) = full_precision(logits)
        total = F.cross_entropy(
            logits, targets.long(), ignore_index=self.ignore_value, reduction="sum"
        )
        if self.average == "all":
            return total / targets.numel()
        return total / torch.clamp((targets != self.ignore_value).sum(), min=1)
