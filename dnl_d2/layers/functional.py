"""Attention over positions, as pure functions on tokens; :mod:`dnl_d2.layers.kernels` computes it.

Shapes: ``query (N, Lq, D)``, ``key (N, Lk, D)``, ``value (N, Lk, Dv)``; a key-padding mask is a
boolean ``(N, Lk)`` tensor that is True at the positions to leave out, as in
:class:`torch.nn.MultiheadAttention`. Logits, softmax and sums are computed in at least fp32, also
under autocast, because a temperature of 0.05 multiplies logits by 20; results come back in the
dtype of ``value``. No function changes its inputs. A sample whose positions are all masked gets
zeros, not NaN.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.layers.kernels import (
    BACKENDS,
    dot_attention,
    fastest,
    relu_sum_attention,
    softmax_attention,
)

# (N, L, D) and a key-padding mask or None -> (N, 1, D) or (N, 1, 1).
Mean = Callable[[Tensor, Tensor | None], Tensor]


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in fp32, or as they are in fp64."""
    return tuple(t if t.dtype in _FULL else t.float() for t in tensors)


_FULL = (torch.float32, torch.float64)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x.to(dtype)``, which where there is nothing to do takes as long as a view."""
    return x if x.dtype == dtype else x.to(dtype)


def _at_least_fp32(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def autocast_off(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of ``x``."""
    # To enter one takes as long as a small product. A graph may run under autocast later.
    if not autocast_is_on(x) and not torch.compiler.is_compiling():
        return _NOTHING
    kind = x.device.type
    return _NOTHING if kind in _WITHOUT_AUTOCAST else torch.autocast(kind, enabled=False)


def autocast_is_on(x: Tensor) -> bool:
    """Whether operations on ``x`` run under autocast."""
    kind = x.device.type
    return kind not in _WITHOUT_AUTOCAST and torch.is_autocast_enabled(kind)


def convolved_dtype(x: Tensor) -> torch.dtype:
    """The dtype of what a convolution gives of ``x``: that of autocast, where it is on."""
    if autocast_is_on(x) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype


# By name: not every version of torch.compile can trace torch.amp.is_autocast_available.
_WITHOUT_AUTOCAST = ("meta",)
_NOTHING = nullcontext()  # one for all: it has no state


def masked_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last axis, in fp32 or fp64.

    Entries where ``mask`` (broadcastable) is True get exactly 0.
    """
    dtype = _at_least_fp32(logits)
    if mask is None:
        return logits.softmax(-1, dtype=dtype)
    weights = logits.masked_fill(mask, torch.finfo(logits.dtype).min).softmax(-1, dtype=dtype)
    return weights.masked_fill(mask, 0.0)


def _mean_weights(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits / logits.shape[-1]
    count = (~mask).sum(-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(mask, 0.0) / count


_WEIGHTS = {"softmax": masked_softmax, "dot": _mean_weights, "relu_sum": _mean_weights}


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
        key = key.transpose(1, 2)
        logits = F.relu(query + key) if similarity == "relu_sum" else query @ key
        return _WEIGHTS[similarity](logits, mask)


def pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    similarity: str = "softmax",
    scale: float = 1.0,
    key_padding_mask: Tensor | None = None,
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Sum over j of w_ij v_j with the weights of :func:`pairwise_weights`, without holding them.

    Exact, in memory linear in Lq and Lk, forward and backward; in time linear too for ``dot`` and
    L log L for ``relu_sum``. Every pairwise block goes through this one function.

    Args:
        query, key, value: ``(N, Lq, D)``, ``(N, Lk, D)`` and ``(N, Lk, Dv)``.
        similarity, scale, key_padding_mask: see :func:`pairwise_weights`.
        backend: how a softmax is computed: ``auto`` (the fastest of the others), ``plain`` (hold
            the map), ``fused`` (PyTorch's kernel) or ``chunked`` (ours, of any widths). Only
            ``plain`` can be differentiated twice. The other similarities have one way each.
        dtype: of queries, keys and values in a fused kernel, which forms fp32 logits from
            half-precision operands too. By default the dtype of ``value`` on CUDA, and fp32 (fp64
            for fp64) elsewhere. All other ways compute in at least fp32.

    Returns:
        ``(N, Lq, Dv)`` in the dtype of ``value``.

    Raises:
        UsageError: unknown ``backend`` or ``similarity``, ``fused`` where PyTorch has no such
            kernel, or operands or a mask that do not belong together.
    """
    check_backend(backend)
    _check_operands(query, key, value, similarity, key_padding_mask)
    double = query.dtype == torch.float64 or value.dtype == torch.float64
    compute = torch.float64 if double else torch.float32
    if similarity == "softmax":
        narrow = (value.dtype if query.is_cuda else compute) if dtype is None else dtype
        if backend == "auto":
            backend = fastest(query, key, value, narrow)
        # Only a fused kernel forms fp32 logits from half-precision operands.
        if backend == "fused" or narrow == torch.float64:
            compute = narrow
    empty = None  # samples with nothing to attend to
    mask = key_padding_mask
    with autocast_off(query):
        query, key, values = cast(query, compute), cast(key, compute), cast(value, compute)
        if mask is not None:
            empty = mask.all(1)[:, None, None]
            mask = mask & ~empty[..., 0]
        if similarity == "softmax":
            out = softmax_attention(query, key, values, scale=scale, mask=mask, backend=backend)
        else:
            out = _mean_attention(similarity, query, key, values, scale, mask)
        if empty is not None:
            out = out.masked_fill(empty, 0.0)
        return cast(out, value.dtype)


def operand_dtype(
    x: Tensor,
    *,
    similarity: str = "softmax",
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> torch.dtype:
    """The dtype to have queries, keys and values of a map ``x`` in.

    Where several of them are one tensor it is cast once then, before
    :func:`pairwise_attention` would cast each.
    """
    halves = similarity == "softmax" and backend in ("auto", "fused")
    if halves and dtype is None and x.is_cuda:
        return convolved_dtype(x)
    return dtype if halves and dtype is not None else _at_least_fp32(x)


def check_backend(name: str) -> str:
    """``name``, if there is a backend of that name, else :class:`UsageError`."""
    if name not in BACKENDS:
        raise UsageError(f"unknown attention_backend {name!r}; use one of {', '.join(BACKENDS)}")
    return name


def float_dtype(name: str | None) -> torch.dtype | None:
    """``"bfloat16"`` -> ``torch.bfloat16``; None stays None.

    Raises:
        UsageError: not the name of a floating-point dtype for computing.
    """
    if name is None:
        return None
    if not isinstance(name, str) or name not in _DTYPES:
        raise UsageError(f"unknown attention_dtype {name!r}; use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


_DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32")}


def _check_operands(
    query: Tensor, key: Tensor, value: Tensor, similarity: str, mask: Tensor | None
) -> None:
    """Raises :class:`UsageError` if shapes do not match: a kernel might read out of bounds."""
    if similarity not in _WEIGHTS:
        raise UsageError(f"unknown similarity {similarity!r}; use one of {', '.join(_WEIGHTS)}")
    q, k, v = query.shape, key.shape, value.shape
    together = len(q) == len(k) == len(v) == 3 and q[0] == k[0] == v[0]
    together = together and k[1] == v[1] and q[2] == k[2]
    if not together or (similarity == "relu_sum" and q[2] != 1):
        names = "(N, Lq, 1), (N, Lk, 1)" if similarity == "relu_sum" else "(N, Lq, D), (N, Lk, D)"
        raise UsageError(
            f"{similarity} attention takes query, key and value of shapes {names} and "
            f"(N, Lk, Dv), got {tuple(q)}, {tuple(k)}, {tuple(v)}"
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != k[:2]):
        raise UsageError(
            f"key_padding_mask must be a boolean {tuple(k[:2])} tensor (True = padding), got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )


def _mean_attention(
    similarity: str, query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> Tensor:
    attend = {"dot": dot_attention, "relu_sum": relu_sum_attention}[similarity]
    if mask is None:
        return attend(query, key, value, scale=scale / key.shape[1])
    count = (~mask).sum(1)[:, None, None].to(key.dtype)
    key, value = (t.masked_fill(mask[..., None], 0.0) for t in (key, value))
    return attend(query, key, value, scale=scale / count)


def split_softmax(
    query: Tensor,
    mean: Tensor,
    key: Tensor,
    *,
    scale: float = 1.0,
    key_padding_mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """A softmax of products and the two terms that it hides (arXiv 2006.06668, eq. 3 to 6).

    q_i.k_j = (q_i - mu_q).(k_j - mu_k) + mu_q.k_j + (q_i - mu_q).mu_k, and the last part is the
    same for every j, so a softmax over j drops it. Hence softmax_j(q_i.k_j) is, up to the factor
    that makes it sum to 1, the product of softmax_j((q_i - mu_q).(k_j - mu_k)) and
    softmax_j(mu_q.k_j). For the same reason keys need not be centred to compute the first of them.

    Args:
        query: ``(N, Lq, D)``.
        mean: mu_q, ``(N, 1, D)``, or ``(N, 1, 1)`` where all channels have one mean.
        key: ``(N, Lk, D)``.
        scale, key_padding_mask: see :func:`pairwise_weights`.

    Returns:
        ``"pairwise"`` and ``"whitened"`` ``(N, Lq, Lk)``, ``"unary"`` ``(N, Lk)``; fp32 or fp64.
    """
    query, mean = full_precision(query, mean)
    mean = mean.expand(-1, -1, query.shape[2])
    rows = torch.cat([query, query - mean, mean], 1)  # one product with the keys for all
    weights = pairwise_weights(rows, key, scale=scale, key_padding_mask=key_padding_mask)
    count = query.shape[1]
    raw, whitened, shared = weights.split([count, count, 1], 1)
    return {"pairwise": raw, "whitened": whitened, "unary": shared[:, 0]}


def unary_weights(logits: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """Softmax over positions of ``(N, L)`` logits: the map that all queries share."""
    return masked_softmax(logits, key_padding_mask)


def unary_attention(
    logits: Tensor, value: Tensor, key_padding_mask: Tensor | None = None
) -> Tensor:
    """Sum over j of softmax_j(logits) v_j: ``(N, L)``, ``(N, L, D)`` -> ``(N, 1, D)``."""
    return row_attention(logits.unsqueeze(1), value, key_padding_mask)


def row_attention(logits: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """As :func:`unary_attention`, of ``(N, 1, L)`` logits."""
    with autocast_off(value):
        mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(1)
        weights = masked_softmax(logits, mask)
        # Products of half precision are summed in fp32; a map in fp32 would be a copy.
        return torch.bmm(cast(weights, value.dtype), value)


def position_mean(x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """Mean over unmasked positions: ``(N, L, D)`` -> ``(N, 1, D)``, in fp32 or fp64."""
    dtype = _at_least_fp32(x)
    if key_padding_mask is None:
        return x.mean(1, keepdim=True, dtype=dtype)
    padding = key_padding_mask[..., None]
    total = x.masked_fill(padding, 0.0).sum(1, keepdim=True, dtype=dtype)
    return total / (~padding).sum(1, keepdim=True).clamp(min=1)


def layer_mean(x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
    """Mean over unmasked positions and channels: ``(N, L, D)`` -> ``(N, 1, 1)``."""
    return position_mean(x, key_padding_mask).mean(-1, keepdim=True)


def center(
    x: Tensor, key_padding_mask: Tensor | None = None, *, mean: Mean = position_mean
) -> Tensor:
    """``x`` minus a mean (arXiv 2006.06668's whitening), in fp32 or fp64."""
    return x - mean(x, key_padding_mask)
