"""Pyramid sampling of keys and values (arXiv 1908.07678, section 3.2) on maps of rank 1 to 3."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dnl_d2.layers.functional import autocast_off, full_precision


def averaging_matrix(size: int, pool_scales: Sequence[int], like: Tensor) -> Tensor:
    """The means over the bins of every scale along one axis: ``(sum(pool_scales), size)``.

    Bin i of s covers positions floor(i size / s) up to, not including, ceil((i + 1) size / s), as
    in :func:`torch.nn.functional.adaptive_avg_pool1d`. Only arithmetic on ``size``, so that it may
    be symbolic.

    Args:
        size: positions of the axis.
        pool_scales: bins of each scale; their rows follow one another.
        like: the tensor whose dtype and device to take.
    """
    device = like.device
    index = torch.cat([torch.arange(s, device=device) for s in pool_scales])[:, None]
    scale = torch.cat([torch.full((s,), s, device=device) for s in pool_scales])[:, None]
    # Position p lies in the bin if i size < (p + 1) s and p s < (i + 1) size: no division.
    ahead = torch.arange(size, device=device) * scale - index * size
    inside = ((ahead > -scale) & (ahead < size)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def pyramid_pool(
    x: Tensor, pool_scales: Sequence[int], key_padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Average-pools ``x`` to each scale and concatenates the cells as tokens.

    Agrees with adaptive average pooling for every size. Pooling along one axis is a product with
    an averaging matrix: the first product serves all scales and is the only one to read the map.

    Args:
        x: ``(N, C, *S)``.
        pool_scales: cells per axis of each level; (1, 3, 6, 8) gives 110 tokens on a 2-d map.
        key_padding_mask: ``(N, *S)``, True at positions that stay out of every mean.

    Returns:
        ``(N, P, C)`` tokens, summed in at least fp32, and, with a mask, ``(N, P)``: True where a
        cell is all padding.
    """
    with autocast_off(x):
        (full,) = full_precision(x)
        bins = [averaging_matrix(size, pool_scales, full) for size in x.shape[2:]]
        if key_padding_mask is None:
            return _cells(full, bins, pool_scales).to(x.dtype), None
        mask = key_padding_mask[:, None]
        share = _cells((~mask).to(full.dtype), bins, pool_scales)
        total = _cells(full.masked_fill(mask, 0.0), bins, pool_scales)
        empty = share == 0
        return (total / share.masked_fill(empty, 1.0)).to(x.dtype), empty[..., 0]


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
    rank = len(spatial)
    bins = [averaging_matrix(size, pool_scales, weights) for size in spatial]
    if key_padding_mask is not None:
        keep = (~key_padding_mask)[:, None].to(weights)
        share = _cells(keep, bins, pool_scales).transpose(1, 2)
        weights = weights / share.masked_fill(share == 0, 1.0)
    axes = "abc"[:rank]
    terms = ",".join(a + a.upper() for a in axes)
    levels = weights.split([s**rank for s in pool_scales], -1)
    rows = zip(*(b.split(list(pool_scales)) for b in bins), strict=True)
    spread = (
        torch.einsum(
            f"nq{axes},{terms}->nq{axes.upper()}", level.reshape(n, q, *(s,) * rank), *means
        )
        for level, s, means in zip(levels, pool_scales, rows, strict=True)
    )
    total = sum(spread, weights.new_zeros(()))
    if key_padding_mask is not None:
        total = total.masked_fill(key_padding_mask[:, None], 0.0)
    return total


def _cells(x: Tensor, bins: Sequence[Tensor], pool_scales: Sequence[int]) -> Tensor:
    """``(N, C, *S)`` -> ``(N, P, C)`` with the averaging matrix of each axis."""
    rank = len(bins)
    channels_last = not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
    x = x.movedim(1, -1) if channels_last else x
    first = 1 if channels_last else 2
    # First, on the largest map, the axis that a product reads in the order of memory.
    order = sorted(range(rank), key=lambda a: (first + a != x.dim() - 2, -a))
    for axis in order:
        means = bins[axis][(None,) * (x.dim() - 2)]  # batched, else matmul copies the map
        x = (means @ x.movedim(first + axis, -2)).movedim(-2, first + axis)
    # Every axis now has the bins of all scales. The few cells that mix two scales are dropped.
    blocks, start = [], 0
    for s in pool_scales:
        block = (slice(None),) * first + (slice(start, start + s),) * rank
        blocks.append(x[block].flatten(first, first + rank - 1))
        start += s
    cells = torch.cat(blocks, first)
    return cells if channels_last else cells.transpose(1, 2)
