"""Multiply-adds and activations of the operations that really run, told from their shapes.

A dispatch mode sees every operation below the modules, so that products in a function or a custom
operator are found as well. Shapes are enough: it works on the ``meta`` device.
"""

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dnl_d2.layers  # noqa: F401  (registers chunked_attention)


class Count(NamedTuple):
    """Of one operation or many.

    Attributes:
        multiply_adds: products that are added up, one for each pair of factors.
        activations: numbers in the results, as fvcore counts them: of convolutions, linear layers
            and products of matrices, a map of attention included.
    """

    multiply_adds: int = 0
    activations: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(a + b for a, b in zip(self, other, strict=True)))


Formula = Callable[[tuple[Any, ...], Tensor], Count]


def _product(factor: int) -> Formula:
    """A product of matrices, whose first one is argument number ``factor``."""
    return lambda args, out: Count(out.numel() * args[factor].shape[-1], out.numel())


def _convolution(args: tuple[Any, ...], out: Tensor) -> Count:
    image, weight, transposed = args[0], args[1], args[6]
    positions = image if transposed else out  # each of them meets the kernel
    return Count(positions.numel() * prod(weight.shape[1:]), out.numel())


def _deformable_convolution(args: tuple[Any, ...], out: Tensor) -> Count:
    """The convolution itself; its interpolated samples are not counted."""
    return Count(out.numel() * prod(args[1].shape[1:]), out.numel())


def _attention(args: tuple[Any, ...], _) -> Count:
    """softmax(Q K^T) V: the map of weights and the result, also where the map is never held."""
    query, key, value = args[:3]
    queries, keys = prod(query.shape[:-1]), key.shape[-2]
    widths = query.shape[-1], value.shape[-1]
    return Count(queries * keys * sum(widths), queries * (keys + widths[1]))


_ATEN = torch.ops.aten
_FUSED = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
# matmul, einsum, linear and the like arrive as these.
FORMULAS: dict[Any, Formula] = {
    _ATEN.mm: _product(0),
    _ATEN.bmm: _product(0),
    _ATEN.mv: _product(0),
    _ATEN.dot: _product(0),
    _ATEN.addmm: _product(1),
    _ATEN.addmm_: _product(1),
    _ATEN.addmv: _product(1),
    _ATEN.baddbmm: _product(1),
    _ATEN.baddbmm_: _product(1),
    _ATEN.convolution: _convolution,
    torch.ops.torchvision.deform_conv2d: _deformable_convolution,
    torch.ops.dnl_d2.chunked_attention: _attention,
    **{getattr(_ATEN, name): _attention for name in _FUSED if hasattr(_ATEN, name)},
}
# Operators of others that select or sample, and multiply no matrices.
_WITHOUT_PRODUCTS = ("aten", "prim", "prims", "profiler")
_SAMPLING = ("torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool")


class OperationCounter(TorchDispatchMode):
    """Counts the operations in its context, each for the innermost module of ``model`` it is in.

    Attributes:
        counts: by (name of the module, name of the operation).
        unknown: operators from outside of PyTorch that have no formula here.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.counts: dict[tuple[str, str], Count] = {}
        self.unknown: Counter[str] = Counter()
        self._model = model
        self._inside = [""]
        self._handles: list[Any] = []

    @property
    def total(self) -> Count:
        return sum(self.counts.values(), Count())

    def __enter__(self) -> "OperationCounter":
        for name, module in self._model.named_modules():
            enter = module.register_forward_pre_hook(lambda *_, name=name: self._enter(name))
            leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
            self._handles += [enter, leave]
        return super().__enter__()

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        super().__exit__(*error)

    def _enter(self, name: str) -> None:
        self._inside.append(name)

    def _leave(self) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket).replace(".", "::", 1)
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            result = out[0] if isinstance(out, tuple) else out
            key = self._inside[-1], name
            self.counts[key] = self.counts.get(key, Count()) + formula(args, result)
        elif func.namespace not in _WITHOUT_PRODUCTS and name not in _SAMPLING:
            self.unknown[name] += 1
        return out
