"""Pyramid sampling of keys and values (arXiv 1908.07678, section 3.2) on maps of rank 1 to 3."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from dnl_d2.layers.common import batched
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


class _Sampling(NamedTuple):
    """How a map of some size is sampled.

    Attributes:
        bins: the averaging matrix of each axis.
        cells: of the cells that the bins of all axes make, flat, those of one scale: ``(P,)``.
        whole: of a small map the averaging matrix of all axes, ``(P, L)``.
    """

    bins: tuple[Tensor, ...]
    cells: Tensor
    whole: Tensor | None = None


def _sampling(spatial: Sequence[int], pool_scales: Sequence[int], like: Tensor) -> _Sampling:
    """The sampling of a map, which is kept for the next of its size: it is many small tensors."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # the size may be symbolic
        return _new_sampling(spatial, pool_scales, like)
    key = (*spatial, *pool_scales, len(spatial), like.dtype, like.device)
    found = _KEPT.get(key)
    if found is None:
        with torch.inference_mode(False):  # training may use what an evaluation has made
            found = _new_sampling(spatial, pool_scales, like)
            if prod(spatial) * len(found.cells) <= _LARGEST_WHOLE:
                whole = reduce(torch.kron, found.bins).index_select(0, found.cells)
                found = found._replace(whole=whole)
        if type(found.cells) is not Tensor:  # of a mode that only traces
            return found
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        _KEPT[key] = found
    return found


_KEPT: dict[tuple[object, ...], _Sampling] = {}
_MOST_KEPT = 100  # sizes, of some 20 KB each, or of at most 256 with the whole matrix
# Numbers in it: 110 cells of 24x24 positions. One product in place of one for each axis and a
# choice of cells is seven calls less in training; of larger maps it would be too many operations.
_LARGEST_WHOLE = 2**16


def _new_sampling(spatial: Sequence[int], pool_scales: Sequence[int], like: Tensor) -> _Sampling:
    bins = tuple(averaging_matrix(size, pool_scales, like) for size in spatial)
    total, start, cells = sum(pool_scales), 0, []
    for s in pool_scales:
        line = torch.arange(start, start + s, device=like.device)
        flat = line
        for _ in spatial[1:]:
            flat = (flat[:, None] * total + line).flatten()
        cells.append(flat)
        start += s
    return _Sampling(bins, torch.cat(cells))


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
    cells, empty = pyramid_means(x, pool_scales, key_padding_mask)
    return cells.to(x.dtype), empty


def pyramid_means(
    x: Tensor, pool_scales: Sequence[int], key_padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """As :func:`pyramid_pool`, in fp32 or fp64."""
    with autocast_off(x):
        (full,) = full_precision(x)
        sampling = _sampling(x.shape[2:], pool_scales, full)
        if key_padding_mask is None:
            return _cells(full, sampling), None
        mask = key_padding_mask[:, None]
        share = _cells((~mask).to(full.dtype), sampling)
        total = _cells(full.masked_fill(mask, 0.0), sampling)
        empty = share == 0
        return total / share.masked_fill(empty, 1.0), empty[..., 0]


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
    sampling = _sampling(spatial, pool_scales, weights)
    if key_padding_mask is not None:
        keep = (~key_padding_mask)[:, None].to(weights)
        share = _cells(keep, sampling).transpose(1, 2)
        weights = weights / share.masked_fill(share == 0, 1.0)
    axes = "abc"[:rank]
    terms = ",".join(a + a.upper() for a in axes)
    levels = weights.split([s**rank for s in pool_scales], -1)
    rows = zip(*(b.split(list(pool_scales)) for b in sampling.bins), strict=True)
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


def _cells(x: Tensor, sampling: _Sampling) -> Tensor:
    """``(N, C, *S)`` -> ``(N, P, C)`` with the averaging matrix of each axis."""
    rank = len(sampling.bins)
    channels_last = not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
    if sampling.whole is not None:
        flat = x.flatten(2)
        if channels_last:
            return torch.bmm(batched(sampling.whole, x.shape[0]), flat.transpose(1, 2))
        return (flat @ sampling.whole.t()).transpose(1, 2)
    x = x.movedim(1, -1) if channels_last else x
    first = 1 if channels_last else 2
    # First, on the largest map, the axis that a product reads in the order of memory.
    order = sorted(range(rank), key=lambda a: (first + a != x.dim() - 2, -a))
    for axis in order:
        means = sampling.bins[axis]
        if first + axis == x.dim() - 1:
            x = x @ means.t()
        else:
            means = means[(None,) * (x.dim() - 2)]  # batched, else matmul copies the map
            x = (means @ x.movedim(first + axis, -2)).movedim(-2, first + axis)
    # Every axis now has the bins of all scales; cells that mix two scales are left.
    cells = x.flatten(first, first + rank - 1).index_select(first, sampling.cells)
    return cells if channels_last else cells.transpose(1, 2)
