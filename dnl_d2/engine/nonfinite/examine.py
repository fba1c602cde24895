"""A training step computed once more, to find where its numbers stop being finite."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dnl_d2.data.stream import seed_all
from dnl_d2.engine.nonfinite.batch import TrainedBatch
from dnl_d2.engine.nonfinite.finding import NonFinite, described, is_finite, tensors_in
from dnl_d2.engine.nonfinite.module_calls import ModuleCalls
from dnl_d2.layers.sync_batch_norm import CPUSyncBatchNorm
from dnl_d2.modeling.compilation import uncompiled


def examine(model: nn.Module, batch: TrainedBatch) -> list[NonFinite]:
    """Computes losses and, if all is finite so far, gradients, as a training step does.

    Nothing is exchanged with other processes: SyncBN takes the statistics of this one's pictures.
    Parameters, their gradients and buffers stay as they are.

    Args:
        model: in training mode; not compiled, without DistributedDataParallel.
        batch: to train on.

    Returns:
        What was not finite, in the order of computing; of inputs and weights that were not finite
        before nothing follows. Gradients come from the loss backwards.
    """
    found = [*_in_inputs(batch.inputs), *_in_weights(model)]
    if found:
        return found
    if batch.random_key:
        seed_all(*batch.random_key)
    # What detectors log is that of the step itself already.
    with EventStorage(batch.iteration), uncompiled(), _by_itself(model), _keeping_buffers(model):
        for part in batch.split():
            found = _examine_part(model, part, batch.dtype)
            if found:
                break
    return found


def _examine_part(model: nn.Module, inputs: Any, dtype: torch.dtype | None) -> list[NonFinite]:
    device = next(model.parameters()).device.type
    calls = ModuleCalls()
    with calls.watching(model):
        try:
            with torch.autocast(device, dtype, enabled=dtype is not None):
                losses = model(inputs)
        except FloatingPointError:  # of a detector's proposals
            losses = {}
    found = [*calls.outputs(), *_statistics(model)]
    total = losses if isinstance(losses, Tensor) else sum(losses.values())
    if found or not isinstance(total, Tensor) or not total.requires_grad:
        return found
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return calls.gradients(dict(zip(trained, gradients, strict=True)))


def _in_inputs(inputs: Any) -> Iterator[NonFinite]:
    records = inputs if isinstance(inputs, list | tuple) else [inputs]
    for record in records:
        named = record.items() if isinstance(record, Mapping) else [("", record)]
        source = f" of {record['file_name']}" if "file_name" in dict(named) else ""
        for key, value in named:
            for tensor in tensors_in(value):
                if not is_finite(tensor):
                    yield described("input", f"{key}{source}", tensor)


def _in_weights(model: nn.Module) -> Iterator[NonFinite]:
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            yield described("weight", name, parameter)


def _statistics(model: nn.Module) -> Iterator[NonFinite]:
    for name, buffer in persistent_buffers(model).items():
        if not is_finite(buffer):
            yield described("statistic", name, buffer)


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a checkpoint holds, such as the statistics of batch norm, by name."""
    saved = model.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


@contextlib.contextmanager
def _by_itself(model: nn.Module) -> Iterator[None]:
    """SyncBN exchanges nothing with other processes."""
    kinds = nn.SyncBatchNorm, CPUSyncBatchNorm, NaiveSyncBatchNorm
    synchronised = [m for m in model.modules() if isinstance(m, kinds)]
    for module in synchronised:
        module.forward = partial(_BatchNorm.forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in synchronised:
            del module.forward


@contextlib.contextmanager
def _keeping_buffers(model: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
