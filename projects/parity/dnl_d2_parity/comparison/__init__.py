"""Two models with the same weights, mmsegmentation's and ours, and how far they differ.

Differences are relative to the reference: max |ours - theirs| / max |theirs|.
"""

from dnl_d2_parity.comparison.blocks import block_difference, compare_blocks, float64_constants
from dnl_d2_parity.comparison.models import batch, label_map, picture, twins
from dnl_d2_parity.comparison.predictions import predict, predict_file, slide
from dnl_d2_parity.comparison.training import gradient_differences, train
from dnl_d2_parity.differences import relative

__all__ = [
    "batch",
    "block_difference",
    "compare_blocks",
    "float64_constants",
    "gradient_differences",
    "label_map",
    "picture",
    "predict",
    "predict_file",
    "relative",
    "slide",
    "train",
    "twins",
]
