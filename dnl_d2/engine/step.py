"""The training step: Detectron2's trainers, with mixed precision and gradient accumulation."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dnl_d2.engine.early_losses import PlainTrainer, ScalingTrainer
from dnl_d2.engine.precision import AutocastInTraining
from dnl_d2.errors import UsageError
from dnl_d2.layers.functional import autocast_off


class AccumulateGradients(nn.Module):
    """Trains on a batch in equal parts, so that only one part's activations are kept at a time.

    To be called by a trainer that has set gradients to zero and goes on with the backward pass of
    what it gets. Each part's loss is the mean over its own pixels (or boxes), and batch norm uses
    its own statistics; but for these two, the gradient is that of the whole batch.

    Args:
        model: takes a list of samples and returns losses by name.
        parts: how many; the number of samples must be a multiple.
        scale: scales a loss before its backward pass, as :class:`torch.amp.GradScaler` does.
    """

    def __init__(
        self, model: nn.Module, parts: int, *, scale: Callable[[Tensor], Tensor] = lambda x: x
    ):
        super().__init__()
        self.model = model
        self.parts = parts
        self.scale = scale

    def forward(self, inputs: list[dict]) -> Any:
        """Accumulates the gradients of all parts but the last, whose graph the losses carry.

        Returns:
            The losses' means over the parts; outside of training what the model returns.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.model(inputs)
        if len(inputs) % self.parts:
            raise UsageError(f"{len(inputs)} images cannot be trained in {self.parts} equal parts")
        size = len(inputs) // self.parts
        *others, last = (inputs[i : i + size] for i in range(0, len(inputs), size))
        means: dict[str, Tensor] = {}
        for part in others:
            with self._without_synchronisation():
                losses = {name: loss / self.parts for name, loss in self.model(part).items()}
                total = sum(losses.values())
                with autocast_off(total):
                    self.scale(total).backward()
            means = {name: means.get(name, 0) + loss.detach() for name, loss in losses.items()}
        losses = self.model(last).items()
        return {name: loss / self.parts + means.get(name, 0) for name, loss in losses}

    def _without_synchronisation(self) -> AbstractContextManager:
        """Processes exchange gradients once, in the last part's backward pass."""
        parallel = [m for m in self.modules() if isinstance(m, DistributedDataParallel)]
        return parallel[0].no_sync() if parallel else nullcontext()


def check_parts(parts: int, batch_size: int, key: str) -> None:
    """Raises :class:`UsageError` unless each process can split its share of a batch evenly.

    Args:
        parts: in which a process trains.
        batch_size: of all processes together.
        key: the config key of ``parts``, for the message.
    """
    processes = comm.get_world_size()
    if parts < 1 or batch_size % (processes * parts):
        raise UsageError(
            f"{key}={parts}: a batch of {batch_size} images over {processes} process(es) does not "
            "split into that many equal parts"
        )


def build_step(
    model: nn.Module,
    loader: Iterable,
    optimizer: torch.optim.Optimizer,
    *,
    device: str,
    dtype: torch.dtype | None,
    parts: int,
) -> SimpleTrainer:
    """Detectron2's SimpleTrainer, or its AMPTrainer for fp16, which needs loss scaling.

    Either reads losses early, see :class:`~dnl_d2.engine.early_losses.EarlyLosses`.

    Args:
        model: as it is trained, :class:`DistributedDataParallel` included.
        loader: training batches.
        optimizer: of the model's parameters.
        device: where the model is.
        dtype: of autocast, see :func:`dnl_d2.engine.precision.autocast_dtype`; None for fp32.
        parts: see :class:`AccumulateGradients`.
    """
    if dtype is torch.float16:
        trainer: SimpleTrainer = ScalingTrainer(model, loader, optimizer)
    else:
        if dtype is torch.bfloat16:
            model = AutocastInTraining(model, device=device)
        trainer = PlainTrainer(model, loader, optimizer)
    if parts > 1:
        if not hasattr(trainer, "zero_grad_before_forward"):
            raise UsageError(
                "gradients cannot be accumulated: this Detectron2 sets them to zero behind the "
                "forward pass; install a newer one (2022-12 or later)"
            )
        scale = {"scale": trainer.grad_scaler.scale} if dtype is torch.float16 else {}
        trainer.model = AccumulateGradients(trainer.model, parts, **scale).train()
        trainer.zero_grad_before_forward = True
    return trainer
