"""Attention over positions, as pure functions on tokens.

Shapes: ``query (N, Lq, D)``, ``key (N, Lk, D)``, ``value (N, Lk, Dv)``; a key-padding mask is a
boolean ``(N, Lk)`` tensor that is True at the positions to leave out, as in
:class:`torch.nn.MultiheadAttention`. Logits, softmax and sums are computed in at least fp32, also
under autocast, because a temperature of 0.05 multiplies logits by 20; results come back in the
dtype of ``value``. No function changes its inputs. A sample whose positions are all masked gets
zeros, not NaN.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in fp32, or as they are in fp64."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


def autocast_off(x: Tensor):
    """A context without autocast on the device of ``x``."""
    kind = x.device.type
    if torch.amp.autocast_mode.is_autocast_available(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def masked_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis; entries where ``mask`` (broadcastable) is True get exactly 0."""
    if mask is None:
        return logits.softmax(-1)
    weights = logits.masked_fill(mask, torch.finfo(logits.dtype).min).softmax(-1)
    return weights.masked_fill(mask, 0.0)


def _softmax_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    return masked_softmax(query @ key.transpose(1, 2), mask)


def _mean_weights(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits / logits.shape[-1]
    count = (~mask).sum(-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(mask, 0.0) / count


def _dot_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    return _mean_weights(query @ key.transpose(1, 2), mask)


def _relu_sum_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    return _mean_weights(F.relu(query + key.transpose(1, 2)), mask)


_WEIGHTS = {"softmax": _softmax_weights, "dot": _dot_weights, "relu_sum": _relu_sum_weights}


def pairwise_weights(
    query: Tensor,
    key: Tensor,
    *,
    similarity: str = "softmax",
    scale: float = 1.0,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Pairwise attention map of the non-local operation (arXiv 1711.07971, eq. 2 to 5).

    Args:
        query: ``(N, Lq, D)``; for ``relu_sum`` the query's half of w^T [q_i, k_j], with D = 1.
        key: ``(N, Lk, D)``.
        similarity: ``softmax``: softmax_j(scale * q_i.k_j); ``dot``: scale * q_i.k_j / Lk;
            ``relu_sum``: ReLU(q_i + k_j) / Lk. Lk counts unmasked keys only.
        scale: factor on the products (1 / (sqrt(C') * temperature) for the softmax forms); it has
            no meaning for ``relu_sum``.
        key_padding_mask: ``(N, Lk)``, True at the keys to leave out.

    Returns:
        ``(N, Lq, Lk)`` weights, fp32 or fp64.
    """
    with autocast_off(query):
        query, key = full_precision(query, key)
        if scale != 1.0:
            query = query * scale
        mask = None if key_padding_mask is None else key_padding_mask[:, None]
        return _WEIGHTS[similarity](query, key, mask)


def pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    similarity: str = "softmax",
    scale: float = 1.0,
    key_padding_mask: Tensor | None = None,
) -> Tensor:
    """Sum over j of w_ij v_j with :func:`pairwise_weights`. Returns ``(N, Lq, Dv)``.

    Every pairwise block goes through this one function: a faster exact kernel belongs here.
    """
    with autocast_off(query):
        weights = pairwise_weights(
            query, key, similarity=similarity, scale=scale, key_padding_mask=key_padding_mask
        )
        return (weights @ value.to(weights.dtype)).to(value.dtype)


def unary_weights(logits: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """Softmax over positions of ``(N, L)`` logits: the map that all queries share."""
    with autocast_off(logits):
        (logits,) = full_precision(logits)
        return masked_softmax(logits, key_padding_mask)


def unary_attention(
    logits: Tensor, value: Tensor, key_padding_mask: Tensor | None = None
) -> Tensor:
    """Sum over j of softmax_j(logits) v_j: ``(N, L)``, ``(N, L, D)`` -> ``(N, 1, D)``."""
    with autocast_off(value):
        weights = unary_weights(logits, key_padding_mask)
        return (weights[:, None] @ value.to(weights.dtype)).to(value.dtype)


def position_mean(x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """Mean over unmasked positions: ``(N, L, D)`` -> ``(N, 1, D)``, in the dtype of ``x``."""
    with autocast_off(x):
        (full,) = full_precision(x)
        if key_padding_mask is None:
            return full.mean(1, keepdim=True).to(x.dtype)
        keep = ~key_padding_mask[..., None]
        total = full.masked_fill(~keep, 0.0).sum(1, keepdim=True)
        return (total / keep.sum(1, keepdim=True).clamp(min=1)).to(x.dtype)


def center(x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """``x`` minus its mean over positions (arXiv 2006.06668's whitening), in fp32 or fp64."""
    with autocast_off(x):
        (full,) = full_precision(x)
        return full - position_mean(full, key_padding_mask)
