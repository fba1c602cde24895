"""Exact attention in memory linear in the number of positions: one file per family of forms."""

from dnl_d2.layers.kernels.linear import dot_attention, relu_sum_attention
from dnl_d2.layers.kernels.softmax import BACKENDS, fastest, softmax_attention

__all__ = ["BACKENDS", "dot_attention", "fastest", "relu_sum_attention", "softmax_attention"]
