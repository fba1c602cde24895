"""Statistics of what context blocks attend to, over a dataset."""

from dnl_d2_attention.maps import map_statistics
from dnl_d2_attention.vectors import logit_shares, mean_cosine_distance

__all__ = ["logit_shares", "map_statistics", "mean_cosine_distance"]
