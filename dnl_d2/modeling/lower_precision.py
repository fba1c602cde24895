"""Products of half the bits: a model for inference in bfloat16 or float16."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from dnl_d2.config.rules import PRECISIONS
from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock
from dnl_d2.layers.common import check_known

# What Detectron2 and this library call the layers whose output is a score or a box. They are small,
# and half the bits would make scores tie and move boxes by pixels.
_LAST_LAYERS = (
    "predictor", "cls_score", "bbox_pred", "objectness_logits", "anchor_deltas", "score_lowres",
    "ctrness",
)  # fmt: skip
# Of x86 and Arm, as torch.cpu.get_capabilities and /proc/cpuinfo call them.
_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16", "sve_bf16", "svebf16"}
_CPUINFO = Path("/proc/cpuinfo")
_logger = logging.getLogger(__name__)


def require_precision(precision: str, device: torch.device) -> None:
    """Raises :class:`UsageError` for a precision that is none, or not on this device.

    bfloat16 on a CPU without instructions for it is right but slow, of which a warning is logged.
    """
    check_known("precision", precision, PRECISIONS)
    if precision == "float16" and device.type == "cpu":
        raise UsageError("precision 'float16' is for GPUs: use 'bfloat16' on a CPU")
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError("precision 'bfloat16': this GPU has none; use 'float16'")
    if precision == "bfloat16" and device.type == "cpu" and not processor_has_bfloat16():
        _logger.warning(
            "precision 'bfloat16': this processor has no instructions for it (avx512_bf16, "
            "amx_bf16 or Arm's bf16) that PyTorch or Linux tell of; where it has none, 'float32' "
            "is faster"
        )


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; False where neither PyTorch nor Linux tells."""
    tell = getattr(torch.cpu, "get_capabilities", None)  # not in PyTorch 2.6
    if tell is not None:
        known = {name for name, has in tell().items() if has is True}
    else:
        known = set(_CPUINFO.read_text().split()) if _CPUINFO.is_file() else set()
    return not known.isdisjoint(_BFLOAT16_INSTRUCTIONS)


def lower_precision(model: nn.Module, precision: str) -> None:
    """Casts a model's convolutions and linear layers, once, and what they are given, at each call.

    What else has parameters (norms, Detectron2's deformable convolutions), RoIAlign and the last
    layers keep their precision, as do softmax and sums in the context blocks. What the model itself
    returns is in the precision that it had.

    Args:
        model: whose norms are folded already. It is changed.
        precision: ``bfloat16`` or ``float16``.

    Raises:
        UsageError: the model is the result of an earlier call.
    """
    if any(isinstance(hook, _Widen) for hook in model._forward_hooks.values()):
        raise UsageError(
            f"precision {precision!r}: the model has been given another already; optimise the "
            "model that it was made from"
        )
    low, own = getattr(torch, precision), _dtype(model)
    for name, module in model.named_modules():
        if _is_product(module) and name.rpartition(".")[2] not in _LAST_LAYERS:
            for parameter in module.parameters(recurse=False):  # not those of its norm
                parameter.data = parameter.data.to(low)
            given = low
        elif isinstance(module, ContextBlock):
            if getattr(module, "attention_dtype", low) is None:
                module.attention_dtype = low  # of fused kernels, whose logits are fp32 nevertheless
            given = low
        elif module._parameters or isinstance(module, ROIPooler):
            given = own
        else:
            continue
        module.register_forward_pre_hook(_Give(given), with_kwargs=True)
    model.register_forward_hook(_Widen(own))


def _is_product(module: nn.Module) -> bool:
    """Whether the weight can be cast: a parameter that only the module itself reads."""
    # A subclass of Linear may be there for others to read its weight, as in MultiheadAttention.
    known = isinstance(module, nn.modules.conv._ConvNd) or type(module) is nn.Linear
    return known and module._parameters.get("weight") is not None


def _dtype(model: nn.Module) -> torch.dtype:
    found = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(found, torch.float32)


@dataclass(frozen=True)
class _Give:
    """A hook: what a module is given is cast to the dtype of its parameters."""

    dtype: torch.dtype

    def __call__(self, module: nn.Module, args: tuple, options: dict) -> tuple[tuple, dict]:
        return _cast(args, self.dtype), _cast(options, self.dtype)


@dataclass(frozen=True)
class _Widen:
    """A hook: what a model returns is cast to the dtype that it had."""

    dtype: torch.dtype

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return _cast(output, self.dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors in lists, tuples and dicts in another dtype; the rest as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_cast(v, dtype) for v in value)
    if type(value) is dict:
        return {k: _cast(v, dtype) for k, v in value.items()}
    return value
