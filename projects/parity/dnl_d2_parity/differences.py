"""How a difference is told."""

import math

import torch
from torch import Tensor


def relative(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; infinity where that is no number."""
    difference = _largest(ours - theirs) / _largest(theirs)
    return math.inf if difference.isnan() else difference.abs().item()


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude; NaN where one value is."""
    low, high = values.aminmax()
    return torch.maximum(-low, high)
