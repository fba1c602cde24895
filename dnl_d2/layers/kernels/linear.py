"""The forms of attention without softmax, exactly and in far fewer operations than L^2."""

import torch
from torch import Tensor


def dot_attention(query: Tensor, key: Tensor, value: Tensor, *, scale: Tensor | float) -> Tensor:
    """scale * (Q K^T) V = scale * Q (K^T V), in time and memory linear in Lq and Lk.

    Args:
        query, key, value: ``(N, Lq, D)``, ``(N, Lk, D)``, ``(N, Lk, Dv)`` of one dtype, zero at
            keys to leave out.
        scale: a number, or one for each sample, ``(N, 1, 1)``.

    Returns:
        ``(N, Lq, Dv)``, with the memory layout of ``query``.
    """
    products = key.transpose(1, 2) @ value * scale  # (N, D, Dv)
    if query.stride(-1) == 1:
        return query @ products
    return (products.transpose(1, 2) @ query.transpose(1, 2)).transpose(1, 2)


def relu_sum_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: Tensor | float
) -> Tensor:
    """scale * sum_j ReLU(a_i + b_j) v_j in time L log L.

    In the order of falling b_j, the terms with a_i + b_j > 0 come first: they sum to
    a_i * V(n_i) + W(n_i), with prefix sums V of v_j and W of b_j v_j and n_i found by bisection.

    Args:
        query, key: ``(N, Lq, 1)`` a and ``(N, Lk, 1)`` b.
        value: ``(N, Lk, Dv)``, zero at keys to leave out.
        scale: a number, or one for each sample, ``(N, 1, 1)``.

    Returns:
        ``(N, Lq, Dv)``.
    """
    # Moving their origin to the mean of b keeps a_i V from cancelling against W.
    origin = key.mean(1, keepdim=True)
    query, key = query + origin, key - origin
    falling, order = (-key[..., 0]).sort(dim=1)
    count = torch.searchsorted(falling.detach(), query[..., 0].detach())  # of -b_j < a_i
    value = _rows(value, order)
    sums = _rows(_prefix_sums(value), count)
    weighted = _rows(_prefix_sums(-falling[..., None] * value), count)
    return (query * sums + weighted) * scale


def _prefix_sums(x: Tensor) -> Tensor:
    """``(N, L, D)`` -> ``(N, L + 1, D)``: sums of the first 0 to L rows."""
    return torch.cat([torch.zeros_like(x[:, :1]), x.cumsum(1)], 1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``x[n, index[n]]`` for each sample."""
    start = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (index + start).flatten()).unflatten(0, index.shape)
