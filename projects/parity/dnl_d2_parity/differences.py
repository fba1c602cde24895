"""How a difference is told."""

import math

from torch import Tensor


def relative(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; infinity where that is no number."""
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    return math.inf if math.isnan(difference) else difference
