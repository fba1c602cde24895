"""Multiply-adds and activations of the operations that really run, told from their shapes.

A dispatch mode sees every operation below the modules, so that products in a function or a custom
operator are found as well. The formulas are those of PyTorch's counter of floating-point
operations. Shapes are enough: it works on the ``meta`` device.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

import dnl_d2.layers  # noqa: F401  (registers chunked_attention)


class Count(NamedTuple):
    """What one operation costs, or many.

    Attributes:
        multiply_adds: multiplications whose results are added up, as in a product of matrices.
        activations: numbers in the results, as fvcore counts them: of convolutions, linear layers
            and products of matrices, a map of attention included.
    """

    multiply_adds: int = 0
    activations: int = 0

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]  # a sum by field
        return Count(*(a + b for a, b in zip(self, other, strict=True)))


_ATEN = torch.ops.aten
_DEFORMABLE = torch.ops.torchvision.deform_conv2d

if _DEFORMABLE not in flop_registry:

    @register_flop_formula(_DEFORMABLE)
    def _deformable_flops(
        image: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
    ) -> int:
        """The convolution itself; its interpolated samples are not counted."""
        return 2 * prod(out_shape) * prod(weight[1:])


def _of_elements(factor: int) -> Callable[..., int]:
    """For operators that multiply each element of argument number ``factor`` once."""
    return lambda *args, **_: 2 * args[factor].numel()


_FUSED = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
_ATTENTION = {
    torch.ops.dnl_d2.chunked_attention,
    *(getattr(_ATEN, name) for name in _FUSED if hasattr(_ATEN, name)),
}
# Operators that PyTorch's counter leaves out.
_MORE: dict[Any, Callable[..., int]] = {
    _ATEN.mv: _of_elements(0),
    _ATEN.dot: _of_elements(0),
    _ATEN.addmv: _of_elements(1),
    _ATEN.addmm_: flop_registry[_ATEN.addmm],
    _ATEN.baddbmm_: flop_registry[_ATEN.baddbmm],
    **dict.fromkeys(
        _ATTENTION - flop_registry.keys(), flop_registry[_ATEN._scaled_dot_product_flash_attention]
    ),
}
# Operators of others that select or sample, and multiply no matrices.
_WITHOUT_PRODUCTS = ("aten", "prim", "prims", "profiler")
_SAMPLING = ("torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool")


def _activations(operator: Any, args: tuple[Any, ...], out: Tensor) -> int:
    """The result; of attention the map of weights too, also where it is never held."""
    if operator not in _ATTENTION:
        return out.numel()
    query, key = args[:2]
    return out.numel() + prod(query.shape[:-1]) * key.shape[-2]


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
            enter = module.register_forward_pre_hook(
                lambda *_, name=name: self._inside.append(name)
            )
            leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
            self._handles += [enter, leave]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        super().__exit__(*error)

    def _leave(self) -> None:
        self._inside.pop()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket).replace(".", "::", 1)
        operator = func.overloadpacket
        formula = flop_registry.get(operator) or _MORE.get(operator)
        if formula is not None:
            flops = formula(*args, **(kwargs or {}), out_val=out)
            result = out[0] if isinstance(out, tuple) else out
            count = Count(flops // 2, _activations(operator, args, result))
            key = self._inside[-1], name
            self.counts[key] = self.counts.get(key, Count()) + count
        elif func.namespace not in _WITHOUT_PRODUCTS and name not in _SAMPLING:
            self.unknown[name] += 1
        return out
