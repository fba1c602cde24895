"""Whole-model inference: the same function with fewer and cheaper operations."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import PointwiseConv
from dnl_d2.layers.functional import full_precision
from dnl_d2.layers.norms import FixedBatchNorm2d
from dnl_d2.layers.sync_batch_norm import CPUSyncBatchNorm
from dnl_d2.modeling.compilation import compile_parts, require_compiler
from dnl_d2.modeling.heads.segmentation_head import SegmentationHead
from dnl_d2.modeling.lower_precision import lower_precision, require_precision

# Exactly these: a subclass may compute something else.
_NORMS = (
    nn.BatchNorm2d, nn.SyncBatchNorm, CPUSyncBatchNorm, NaiveSyncBatchNorm, FrozenBatchNorm2d,
    FixedBatchNorm2d,
)  # fmt: skip
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
# The forward methods that compute activation(norm(convolution)).
_CONVOLUTIONS = (Conv2d.forward, PointwiseConv.forward)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def optimize_for_inference(
    model: nn.Module, *, precision: str = "float32", compile: bool = False
) -> nn.Module:
    """A copy of ``model`` that predicts the same up to rounding, in less time and memory.

    Norms with running statistics are folded into the convolutions that carry them (Detectron2's
    ``Conv2d`` and this library's ``PointwiseConv``); weights are laid out channels-last, which the
    feature maps then follow; auxiliary heads and dropout are gone; no parameter asks for a
    gradient. Where folding would change something it is left out: other norms (GN, LN), norms that
    a block applies to a sum, and norms without running statistics or with hooks.

    Load weights and move the model to its device and dtype first. The copy's parameters differ from
    the model's (biases in place of norms), so what is saved from it does not load into a model that
    a config builds: keep the checkpoint of the original. The copy refuses to run in training mode.
    Optimising it again returns another copy, compiled if that is asked for again.

    Args:
        model: any model or part of one, such as a segmentor, a detector or a backbone, in either
            mode, also inside DataParallel or DistributedDataParallel. It is not changed.
        precision: of convolutions, linear layers and attention: ``float32`` leaves the model's own;
            ``bfloat16``, on processors and GPUs that have it, or ``float16``, on GPUs, take less
            time and round more; see :func:`~dnl_d2.modeling.lower_precision.lower_precision`.
        compile: have :func:`torch.compile` compile its backbone and head (of other models the
            whole), when it first predicts a picture, and once more when another size comes.

    Returns:
        The copy, in evaluation mode, on the device of the original and without such a wrapper.

    Raises:
        UsageError: ``model`` is no module, or a ScriptModule; a precision that is none, that the
            device lacks, or that a model is to have in place of another such; or nothing can be
            compiled here.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            f"optimize_for_inference takes a torch.nn.Module (not a scripted one), got "
            f"{type(model).__name__}; "
            "the model of Detectron2's DefaultPredictor is its .model"
        )
    while isinstance(model, _WRAPPERS):
        model = model.module
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    require_precision(precision, device)
    if compile:
        require_compiler(device, "compile")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, SegmentationHead):
            module.auxiliary = None
        if _can_fold(module):
            _fold(module)
        for name, child in module.named_children():
            if type(child) in _DROPOUTS:
                setattr(module, name, nn.Identity())
    if precision != "float32":
        lower_precision(model, precision)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if _refuse_training not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(_refuse_training)
    if compile:
        compile_parts(model)
    return model


def _can_fold(conv: nn.Module) -> bool:
    if type(conv).forward not in _CONVOLUTIONS:
        return False
    norm: Any = conv.norm
    return (
        type(norm) in _NORMS
        and norm.running_mean is not None
        # Hooks may read what is between the two, or compute the weight (weight_norm, as does
        # pruning; parametrised weights are no parameters of the convolution).
        and not (norm._forward_hooks or norm._forward_pre_hooks or conv._forward_pre_hooks)
        and isinstance(conv._parameters.get("weight"), nn.Parameter)
    )


def _fold(conv: Conv2d | PointwiseConv) -> None:
    """Puts the norm into the weights, computing in at least fp32 whatever the model's dtype."""
    norm: Any = conv.norm  # one of _NORMS
    dtype = conv.weight.dtype
    tensors = conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias
    wide: list[Any] = [None if t is None else full_precision(t)[0] for t in tensors]
    weight, bias, mean, variance, scale, shift = wide
    weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    conv.norm = None
    if conv.activation is F.relu:
        conv.activation = F.relu_  # nobody else holds what the convolution has just returned


def _refuse_training(model: nn.Module, _inputs: tuple) -> None:
    if model.training:
        raise UsageError(
            "this model was optimised for inference and cannot train: call .eval() on it, or "
            "train the model it was made from"
        )
