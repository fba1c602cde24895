"""Pyramid sampling of keys and values (arXiv 1908.07678, section 3.2) on maps of rank 1 to 3."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def pyramid_pool(
    x: Tensor, pool_scales: Sequence[int], key_padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Average-pools ``x`` to each scale and concatenates the cells as tokens.

    Args:
        x: ``(N, C, *S)``.
        pool_scales: cells per axis of each level; (1, 3, 6, 8) gives 110 tokens on a 2-d map.
        key_padding_mask: ``(N, *S)``, True at positions that stay out of every mean.

    Returns:
        ``(N, P, C)`` tokens and, with a mask, ``(N, P)``: True where a cell is all padding.
    """
    rank = x.dim() - 2
    pool = _POOLS[rank]
    if key_padding_mask is None:
        cells = [pool(x, (s,) * rank).flatten(2) for s in pool_scales]
        return torch.cat(cells, -1).transpose(1, 2), None
    keep = (~key_padding_mask)[:, None].to(x.dtype)
    cells, empty = [], []
    for s in pool_scales:
        share = pool(keep, (s,) * rank).flatten(2)
        total = pool(x.masked_fill(key_padding_mask[:, None], 0.0), (s,) * rank).flatten(2)
        none = share == 0
        cells.append(total / share.masked_fill(none, 1.0))
        empty.append(none[:, 0])
    return torch.cat(cells, -1).transpose(1, 2), torch.cat(empty, -1)


def spread_over_positions(
    weights: Tensor,
    spatial: Sequence[int],
    pool_scales: Sequence[int],
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Turns weights on pyramid cells into the weights they put on single positions.

    A cell's value is the mean of its positions, so attending to the cell with weight a is
    attending to each of its n positions with a / n: the exact map to draw in a figure.

    Args:
        weights: ``(N, Q, P)``.
        spatial: the map's size S.
        pool_scales: as given to :func:`pyramid_pool`.
        key_padding_mask: ``(N, *S)`` or None.

    Returns:
        ``(N, Q, *S)``.
    """
    n, q, _ = weights.shape
    axes = "abc"[: len(spatial)]
    total = weights.new_zeros(n, q, *spatial)
    start = 0
    for s in pool_scales:
        cells = s ** len(spatial)
        level = weights[..., start : start + cells].reshape(n, q, *(s,) * len(spatial))
        start += cells
        # Row i of this (s, size) matrix holds the mean over bin i, as adaptive pooling takes it.
        bins = [F.adaptive_avg_pool1d(torch.eye(k).to(weights)[None], s)[0].T for k in spatial]
        if key_padding_mask is not None:
            keep = (~key_padding_mask).to(weights)
            share = _POOLS[len(spatial)](keep[:, None], (s,) * len(spatial))
            level = level / share.masked_fill(share == 0, 1.0)
        terms = ",".join(a + a.upper() for a in axes)
        total = total + torch.einsum(f"nq{axes},{terms}->nq{axes.upper()}", level, *bins)
    if key_padding_mask is not None:
        total = total.masked_fill(key_padding_mask[:, None], 0.0)
    return total
