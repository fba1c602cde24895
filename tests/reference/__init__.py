"""Oracles: every context block once more, in float64, one position at a time.

They follow the published equations with plain loops and share no code with ``dnl_d2``. Each takes
``(params, options, x, mask, training)``: the block's state dict as float64 arrays, the keyword
arguments it was built with, the map ``(N, C, *S)``, a mask ``(N, *S)`` or None, and whether norms
use batch statistics.
"""

from tests.reference.asymmetric import asymmetric_fusion, asymmetric_pyramid
from tests.reference.common import Reference
from tests.reference.disentangled import disentangled
from tests.reference.global_context import global_context, simplified_non_local
from tests.reference.non_local import non_local

ORACLES = {
    "nl": non_local,
    "snl": simplified_non_local,
    "gc": global_context,
    "dnl": disentangled,
    "apnb": asymmetric_pyramid,
    "afnb": asymmetric_fusion,
}

__all__ = ["ORACLES", "Reference"]
