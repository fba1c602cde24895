"""Losses that are logged while their backward pass is still running."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import Tensor

from dnl_d2.engine.nonfinite.guard import NonFiniteStep, NumbersGuard, StepLeftOut


class EarlyLosses:
    """For Detectron2's trainers: reads the losses of a step without waiting for all of it.

    A GPU works off a queue, and whoever reads a number from it waits for all that is queued. The
    trainers read the losses behind the backward pass, and the GPU is idle until the optimizer and
    the next step are queued. Here their copies are queued before the backward pass, and
    waited for behind it: a loss that is not finite still ends its own iteration.

    Attributes:
        guard: judges the numbers of each step; None for none.
    """

    model: Any
    data_loader: Any
    iter: int
    guard: NumbersGuard | None = None

    def run_step(self) -> None:
        model = self.model
        self.model = _CopiesLosses(model, self._begin)
        try:
            self._guarded_step()
        except StepLeftOut:
            pass
        finally:
            self.model = model

    def _begin(self, inputs: Any) -> None:
        if self.guard is not None:
            random_key = getattr(self.data_loader, "random_key", ())
            self.guard.begin(inputs, self.iter, random_key)

    def _guarded_step(self) -> None:
        try:
            super().run_step()  # type: ignore[misc]
        except FloatingPointError as error:
            if self.guard is None or isinstance(error, NonFiniteStep):
                raise
            self.guard.failed(error)  # the model has refused its own numbers

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], *args: Any, **options: Any) -> None:
        losses = dict(zip(loss_dict, self.model.copied(), strict=True))
        if self.guard is not None:
            self.guard.check(losses)
        super()._write_metrics(losses, *args, **options)  # type: ignore[misc]


class PlainTrainer(EarlyLosses, SimpleTrainer):
    """Detectron2's SimpleTrainer, see :class:`EarlyLosses`."""


class ScalingTrainer(EarlyLosses, AMPTrainer):
    """Detectron2's AMPTrainer, see :class:`EarlyLosses`."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also goes on with a run that scaled no loss, from the first scale."""
        super().load_state_dict({"grad_scaler": self.grad_scaler.state_dict()} | state_dict)


class _CopiesLosses:
    """Calls a model and starts copying its losses to the CPU.

    Args:
        model: the model.
        begin: is called with its inputs before.
    """

    def __init__(self, model: Callable, begin: Callable[[Any], None]):
        self._model, self._begin = model, begin
        self._copies: list[Tensor] = []
        self._done: torch.cuda.Event | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, data: Any) -> Any:
        self._begin(data)
        found = self._model(data)
        losses = [found] if isinstance(found, Tensor) else list(found.values())
        cuda = [loss.device for loss in losses if loss.is_cuda]
        # Not waiting takes an event that says when the copies are there.
        self._copies = [loss.detach().to("cpu", non_blocking=loss.is_cuda) for loss in losses]
        if cuda:
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(cuda[0]))
        return found

    def copied(self) -> list[Tensor]:
        """The losses, in the model's order, once they have arrived."""
        if self._done is not None:
            self._done.synchronize()
        return self._copies
