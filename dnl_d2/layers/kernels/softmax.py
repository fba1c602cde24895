"""Exact softmax attention: three ways to compute one function, and the choice between them.

``plain`` holds the whole ``(Lq, Lk)`` map, for small maps. ``fused`` is PyTorch's
scaled_dot_product_attention, where it has a kernel that never holds the map. ``chunked`` is ours,
for all the rest: it goes over queries in chunks (on a CPU with PyTorch's forward kernel, where that
will do), keeps their log-sum-exp and computes the weights again in the backward pass.

Shapes are those of :mod:`dnl_d2.layers.functional`. The caller has taken care of dtypes, and masks
leave at least one key of every sample.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from dnl_d2.errors import UsageError

BACKENDS = ("auto", "plain", "fused", "chunked")

# What ``auto`` takes, and the figures that decided. A map is small up to so many logits, or with no
# more keys than a query has numbers.
#
# | device | operands | map | backend | measured |
# | --- | --- | --- | --- | --- |
# | CPU | any | small | plain | two cores; in training weights at hand save most |
# | CPU | any, in training | large | chunked | PyTorch's backward kernel: one thread for a head |
# | CPU | any, otherwise | large | fused | 95 % of the rate of a matrix product |
# | CUDA | half precision | any | fused | H200: 250 TFLOP/s forward, 260 in training at 8192^2, |
# |      |                |     |       | 696 and 416 at 32768^2; a held map is fp32, 50 at most |
# | CUDA | fp32, in training | has room | plain | H200, 8192^2, width 256, both passes: 5.5 ms; |
# |      |                   |          |       | fused 6.8, chunked 7.0 |
# | CUDA | fp32, otherwise | large | fused | H200: 39 TFLOP/s; a matrix product 50 |
#
# Where fused has no kernel it is chunked. Which of its kernels runs PyTorch decides; where it has
# one of cuDNN that is right for all sizes (on Hopper and Blackwell) it prefers that by itself.
_HELD_LOGITS, _HELD_LOGITS_TRAINING = 2**18, 2**22  # 1 and 16 MiB of fp32
# A map in training is three at the peak, in the backward pass: weights, their gradients and those
# of the logits. It has room where these take no more than this share of the memory that is free.
_MAPS_IN_TRAINING, _SHARE_OF_FREE_MEMORY = 3, 1 / 8
_FUSED_DTYPES = {
    "cpu": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
# Logits to hold at once: 16 MiB of fp32 on a CPU, 64 on a GPU, which wants few large products.
_CPU_LOGITS, _GPU_LOGITS = 2**22, 2**24
# (queries, keys) of a tile of the map in the backward pass on a CPU. From 512x1024 to this size all
# took the same time on two idle cores; few large products lose least to other load.
_CPU_TILE = (2048, 2048)


def softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, mask: Tensor | None, backend: str
) -> Tensor:
    """softmax(scale * Q K^T) V: ``(N, Lq, D)``, ``(N, Lk, D)``, ``(N, Lk, Dv)`` -> ``(N, Lq, Dv)``.

    Args:
        query, key, value: of one dtype.
        scale: factor on the products.
        mask: ``(N, Lk)``, True at the keys to leave out, never all of a sample's; or None.
        backend: ``plain``, ``fused`` or ``chunked``.

    Raises:
        UsageError: ``fused`` where PyTorch would silently hold the map.
    """
    if backend == "plain":
        return _plain(query, key, value, scale, mask)
    if _is_exporting():
        return _fused_by_padding(query, key, value, scale, mask)
    if backend == "fused":
        if not fusible(query, value, query.dtype):
            raise UsageError(
                f"attention_backend 'fused': PyTorch has no such kernel for {query.dtype} on "
                f"{query.device.type} with keys of width {query.shape[2]} and values of width "
                f"{value.shape[2]}; use 'auto'"
            )
        return _fused(query, key, value, scale, mask)
    bias = None if mask is None else _as_bias(mask, query.dtype)
    return torch.ops.dnl_d2.chunked_attention(query, key, value, bias, scale)[0]


def _is_exporting() -> bool:
    """Whether the graph that is recorded will run elsewhere, at any size."""
    if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():
        return True
    # Exports by Dynamo are told by this since PyTorch 2.7, and are not before. What is public,
    # is_exporting, is true of torch.compile too, in some versions (2.8 and 2.11).
    return getattr(torch.compiler, "_is_exporting_flag", False) or torch.jit.is_tracing()


def _known(condition: bool) -> bool:
    """Whether a condition on sizes is known to hold.

    A graph that torch.compile makes for all sizes does not know. If it asked, as it does before
    PyTorch 2.8, it would serve the sizes of one answer alone.
    """
    if not torch.compiler.is_dynamo_compiling():
        return condition
    from torch.fx.experimental import symbolic_shapes  # which takes most of a second

    asks = not hasattr(symbolic_shapes, "sym_or")
    return condition if asks else symbolic_shapes.statically_known_true(condition)


def fastest(query: Tensor, key: Tensor, value: Tensor, dtype: torch.dtype) -> str:
    """The backend that ``auto`` stands for, where a fused kernel would take ``dtype``."""
    half = dtype in (torch.bfloat16, torch.float16)
    if half and query.is_cuda and fusible(query, value, dtype):
        return "fused"
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    # An exported graph serves all sizes and must not ask for one.
    if not _is_exporting() and _holds_map(query, key, training):
        return "plain"
    training_on_cpu = training and query.device.type == "cpu"
    return "chunked" if training_on_cpu or not fusible(query, value, dtype) else "fused"


def _holds_map(query: Tensor, key: Tensor, training: bool) -> bool:
    """Whether holding the map is fastest, where a fused kernel takes no half precision."""
    (batch, queries, width), keys = query.shape, key.shape[1]
    logits = batch * queries * keys
    small = _HELD_LOGITS_TRAINING if training else _HELD_LOGITS
    if _known(keys <= width) or _known(logits <= small):
        return True
    # A compiled graph is made once, whatever is free later.
    if not (training and query.is_cuda) or torch.compiler.is_compiling():
        return False
    size = logits * max(query.element_size(), 4)
    return _MAPS_IN_TRAINING * size <= _SHARE_OF_FREE_MEMORY * _free_memory(query.device)


def _free_memory(device: torch.device) -> int:
    """Bytes of a GPU that PyTorch can hand out, also those that it keeps for itself."""
    if torch.cuda.is_current_stream_capturing():  # when nothing may be asked
        return 0
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def fusible(query: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    """Whether PyTorch has a kernel for these, cast to ``dtype``, that does not hold the map."""
    kind = query.device.type
    if dtype not in _FUSED_DTYPES.get(kind, ()) or _lacks_bfloat16(query.device, dtype):
        return False
    width, value_width = query.shape[2], value.shape[2]
    if kind == "cpu":
        return width == value_width
    # Wide values are split into heads of the keys' width; CUDA kernels want aligned rows.
    return value_width % width == 0 and width % 8 == 0


def _lacks_bfloat16(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the GPU is older than Ampere, where PyTorch would hold the map of bfloat16."""
    if dtype != torch.bfloat16 or device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_properties(device).major < 8


def _plain(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    # torch.matmul takes several views more, each of which is a call in both passes.
    logits = torch.bmm(query * scale, key.transpose(1, 2))
    if mask is not None:
        logits = logits.masked_fill(mask[:, None], -torch.inf)
    return torch.bmm(logits.softmax(-1), value)


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    heads = value.shape[2] // query.shape[2]
    # The CPU kernel falls back to the whole map where the last axis is not contiguous.
    query, key = (_contiguous_rows(t)[:, None].expand(-1, heads, -1, -1) for t in (query, key))
    value = _contiguous_rows(value).unflatten(2, (heads, -1)).transpose(1, 2)
    keep = None if mask is None else ~mask[:, None, None]
    out = F.scaled_dot_product_attention(query, key, value, keep, scale=scale)
    return out.transpose(1, 2).flatten(2)


def _fused_by_padding(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> Tensor:
    """As :func:`_fused`, of any widths: values get zeros, up to a multiple of the keys' width."""
    value_width = value.shape[2]
    value = F.pad(value, (0, -value_width % key.shape[2]))
    return _fused(query, key, value, scale, mask)[..., :value_width]


def _contiguous_rows(tokens: Tensor) -> Tensor:
    return tokens if tokens.stride(-1) == 1 else tokens.contiguous()


def _as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -torch.inf)


@torch.library.custom_op("dnl_d2::chunked_attention", mutates_args=())
def _chunked(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of each query's logits, ``(N, Lq)``."""
    if query.device.type == "cpu" and fusible(query, value, query.dtype):
        return _fused_with_log_sum(query, key, value, bias, scale)
    out = value.new_empty(*query.shape[:2], value.shape[2])
    log_sum = query.new_empty(query.shape[:2])
    rows = _rows_at_once(query, key)
    buffer = query.new_empty(min(rows, query.shape[1]) * key.shape[1])
    for n in range(query.shape[0]):
        masked = None if bias is None else bias[n]
        for chunk in _spans(query.shape[1], rows):
            logits = _logits(query[n, chunk], key[n], masked, scale, buffer)
            largest = logits.amax(1, keepdim=True)
            weights = logits.sub_(largest).exp_()
            total = weights.sum(1, keepdim=True)
            torch.mm(weights, value[n], out=out[n, chunk])
            out[n, chunk].div_(total)
            torch.add(largest, total.log_(), out=log_sum[n, chunk, None])
    return out, log_sum


def _fused_with_log_sum(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """What is under scaled_dot_product_attention on a CPU, which hides the log-sum-exp."""
    query, key, value = (_contiguous_rows(t)[:, None] for t in (query, key, value))
    out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, attn_mask=None if bias is None else bias[:, None, None], scale=scale
    )
    return out[:, 0].contiguous(), log_sum[:, 0].contiguous()


@_chunked.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    return value.new_empty(*query.shape[:2], value.shape[2]), query.new_empty(query.shape[:2])


@torch.library.custom_op("dnl_d2::chunked_attention_backward", mutates_args=())
def _chunked_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_sum: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from weights that are computed again.

    With P = softmax(S) and dP = dO V^T: dV = P^T dO, dS = P (dP - rowsum(dO O)), dQ = scale dS K,
    dK = scale dS^T Q.
    """
    grads = [torch.zeros(t.shape, dtype=t.dtype, device=t.device) for t in (query, key, value)]
    on_cpu = query.device.type == "cpu"
    rows, columns = _CPU_TILE if on_cpu else (_rows_at_once(query, key), key.shape[1])
    size = min(rows, query.shape[1]) * min(columns, key.shape[1])
    buffers = query.new_empty(size), query.new_empty(size)
    for n in range(query.shape[0]):
        grad_query, grad_key, grad_value = (g[n] for g in grads)
        inner = (grad[n] * out[n]).sum(1, keepdim=True)
        for k in _spans(key.shape[1], columns):
            for q in _spans(query.shape[1], rows):
                masked = None if bias is None else bias[n, k]
                logits = _logits(query[n, q], key[n, k], masked, scale, buffers[0])
                weights = logits.sub_(log_sum[n, q, None]).exp_()
                grad_value[k].addmm_(weights.t(), grad[n, q])
                slopes = buffers[1][: weights.numel()].view_as(weights)
                torch.mm(grad[n, q], value[n, k].t(), out=slopes)
                slopes.sub_(inner[q]).mul_(weights)
                grad_query[q].addmm_(slopes, key[n, k], alpha=scale)
                grad_key[k].addmm_(slopes.t(), query[n, q], alpha=scale)
    grad_query, grad_key, grad_value = grads
    return grad_query, grad_key, grad_value


@_chunked_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object) -> tuple[Tensor, ...]:
    return tuple(torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (query, key, value))


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, bias, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    query, key, value, bias, out, log_sum = ctx.saved_tensors
    grads = torch.ops.dnl_d2.chunked_attention_backward(
        grad, query, key, value, bias, out, log_sum, ctx.scale
    )
    return *grads, None, None


_chunked.register_autograd(_backward, setup_context=_save)


# For PyTorch's counter of floating-point operations, two for a product that is added to a sum.
@register_flop_formula(torch.ops.dnl_d2.chunked_attention)
def _flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Of Q K^T and its product with V, from the shapes."""
    return 2 * prod(query[:2]) * key[1] * (query[2] + value[2])


@register_flop_formula(torch.ops.dnl_d2.chunked_attention_backward)
def _backward_flops(
    _: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *__: Any,
    **___: Any,
) -> int:
    """Q K^T again, and two products for each product of the forward pass, from the shapes."""
    return 2 * prod(query[:2]) * key[1] * (3 * query[2] + 2 * value[2])


def _logits(
    query: Tensor, key: Tensor, bias: Tensor | None, scale: float, buffer: Tensor
) -> Tensor:
    """scale * Q K^T + bias, in the buffer."""
    out = buffer[: query.shape[0] * key.shape[0]].view(query.shape[0], key.shape[0])
    if bias is None:
        return torch.addmm(out, query, key.t(), beta=0, alpha=scale, out=out)
    return torch.addmm(bias, query, key.t(), alpha=scale, out=out)


def _rows_at_once(query: Tensor, key: Tensor) -> int:
    logits = _CPU_LOGITS if query.device.type == "cpu" else _GPU_LOGITS
    return max(logits // key.shape[1], 1)


def _spans(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
