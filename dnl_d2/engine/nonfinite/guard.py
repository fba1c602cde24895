"""Ends a run, or leaves a step out, where loss, gradients or statistics are not finite."""

import logging
import math
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from dnl_d2.engine.nonfinite.batch import TrainedBatch
from dnl_d2.engine.nonfinite.examine import examine, persistent_buffers
from dnl_d2.engine.nonfinite.finding import first_cause
from dnl_d2.engine.nonfinite.repro_file import write_repro
from dnl_d2.engine.spec import RunSpec
from dnl_d2.errors import UsageError

_log = logging.getLogger(__name__)
_NUMBERS = "gradients or statistics are not finite"
_SCALE = "the loss scale has fallen below 1, so many steps in a row had gradients beyond float16"


class NonFiniteStep(FloatingPointError):
    """Ends a run: in which iteration, on which files, where from."""


class StepLeftOut(Exception):
    """Ends a step before the optimizer's."""


class NumbersGuard:
    """Looks at the numbers of each step behind its backward pass.

    The norm of all gradients and statistics is computed on the device. On a CPU it is looked at
    before the optimizer steps. A GPU would have to be waited for: there a fused optimizer is given
    it and by itself changes nothing where it is not finite, and it is read in the next step. With
    steps to leave out, in the last step and for other optimizers it is waited for.

    With float16 gradients are the scaler's to judge, and its scale is looked at.

    Args:
        spec: the run.
        model: without what joins processes.
        optimizer: of its parameters.
        scaler: of the loss in float16; None for none.
        dtype: of autocast; None for none.

    Attributes:
        in_a_row: how many of the last steps were left out.
    """

    def __init__(
        self,
        spec: RunSpec,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: torch.amp.GradScaler | None,
        dtype: torch.dtype | None,
    ):
        self._spec, self._model, self._optimizer = spec, model, optimizer
        self._scaler, self._dtype = scaler, dtype
        buffers = persistent_buffers(model).values()
        self._statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
        # Copied apart: many tensors in one kernel have one type.
        self._buffers = [group for group in (self._statistics, counters) if group]
        self._kept = [[buffer.clone() for buffer in group] for group in self._buffers]
        fused = bool(optimizer.defaults.get("fused")) or scaler is not None
        on_cuda = torch.device(spec.device).type == "cuda"
        self.reads_late = on_cuda and fused and not spec.skip_nonfinite
        self._late: tuple[TrainedBatch, Tensor, torch.cuda.Event | None] | None = None
        self._batch = TrainedBatch([], -1)
        self.in_a_row = 0

    def begin(self, inputs: Any, iteration: int, random_key: tuple[int, ...]) -> None:
        """Notes what a step is about to train on."""
        parts = self._spec.accumulate
        self._batch = TrainedBatch(inputs, iteration, random_key, parts, self._dtype)
        for kept, buffers in zip(self._kept, self._buffers, strict=True):
            torch._foreach_copy_(kept, buffers)

    def check(self, losses: Mapping[str, Tensor]) -> None:
        """Goes on where all is finite in all processes, and decides likewise in each.

        Args:
            losses: of the step, on the CPU.

        Raises:
            StepLeftOut: the optimizer is not to step.
            NonFiniteStep: the run is to end.
        """
        batch, reason = self._batch, ""
        if self._late is not None:
            earlier, norm, done = self._late
            self._late = None
            if done is not None:
                done.synchronize()
            if not math.isfinite(norm.item()):
                batch, reason = earlier, self._of_norm
        wrong = [name for name, loss in losses.items() if not math.isfinite(loss.item())]
        if not reason and wrong:
            reason = ", ".join(f"{name} is {losses[name].item()}" for name in wrong)
        if not reason:
            reason = self._check_norm()
        if any(comm.all_gather(reason)):
            self._act(batch, reason)
        self.in_a_row = 0

    def failed(self, error: FloatingPointError) -> None:
        """As :meth:`check`, where the model itself has refused to go on, in this process alone."""
        reason = " ".join(str(error).split()).rstrip(".")
        if comm.get_world_size() == 1:
            try:
                self._act(self._batch, reason)
            except NonFiniteStep as ended:
                raise ended from error
        self._put_back()
        reason = f"{reason}; {self._origin(self._batch)[1]}"
        raise NonFiniteStep(self._explained(self._batch, reason, keep=True)) from error

    @property
    def _of_norm(self) -> str:
        return _NUMBERS if self._scaler is None else f"{_SCALE}, or statistics are not finite"

    def _check_norm(self) -> str:
        """What is wrong with the numbers of this step, unless that is read in the next one."""
        norm = self._norm()
        last = self._batch.iteration >= self._spec.max_iter - 1
        if not self.reads_late or last:
            return "" if math.isfinite(norm.item()) else self._of_norm
        if self._scaler is None:
            wrong = (~norm.isfinite()).to(torch.float32)
            self._optimizer.found_inf = wrong  # type: ignore[attr-defined]  # for fused kernels
        copy, done = norm.to("cpu", non_blocking=True), None
        if norm.is_cuda:
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(norm.device))
        self._late = self._batch, copy, done
        return ""

    def _norm(self) -> Tensor:
        """Of gradients and statistics; not finite where the loss scale is below 1."""
        parameters = (p for group in self._optimizer.param_groups for p in group["params"])
        if self._scaler is None:
            found = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        else:
            one = torch.ones((), device=self._spec.device)
            found = [1.0 / (self._scaler.scale(one) >= 1.0)]
        found += self._statistics
        if not found:
            return torch.zeros(())
        return torch.stack([n.float() for n in torch._foreach_norm(found)]).norm()

    def _act(self, batch: TrainedBatch, reason: str) -> NoReturn:
        """In all processes together: leaves the step out, or ends the run.

        Args:
            batch: that the numbers are of.
            reason: what is not finite in this process; empty if nothing is.
        """
        self._put_back()
        self.in_a_row += 1
        allowed = self._spec.skip_nonfinite
        ends = self.in_a_row > allowed
        found, origin = self._origin(batch) if reason else (False, "")
        # The gradients of all are those of one: it alone has something to tell.
        elsewhere = any(comm.all_gather(found)) and not found
        tells = bool(reason) and not elsewhere
        text = self._explained(batch, f"{reason}; {origin}", keep=ends) if tells else ""
        text = next(filter(None, comm.all_gather(text)))
        if ends:
            more = f"; the {allowed} steps before it were left out" if allowed else ""
            raise NonFiniteStep(text + more)
        _log.warning(
            f"{text}: the step is left out, {self.in_a_row} in a row of {allowed} allowed by "
            f"{self._spec.keys.skip_nonfinite}"
        )
        raise StepLeftOut

    def _put_back(self) -> None:
        """Statistics as they were before the step."""
        for buffers, kept in zip(self._buffers, self._kept, strict=True):
            torch._foreach_copy_(buffers, kept)

    def _explained(self, batch: TrainedBatch, reason: str, *, keep: bool) -> str:
        """Iteration, files and origin, and where the step is kept if it is to be."""
        processes = comm.get_world_size()
        process = f" in process {comm.get_rank()}" if processes > 1 else ""
        text = f"iteration {batch.iteration}{process}: {reason}"
        files = batch.files()
        if files:
            text += f"; pictures {files}"
        if not keep:
            return text
        name = f"nonfinite-{batch.iteration:07d}" + f"-process{comm.get_rank()}" * (processes > 1)
        path = os.path.join(self._spec.output_dir, f"{name}.pth")
        try:
            write_repro(path, self._model, self._spec.config, batch, reason)
        except UsageError as error:
            return f"{text}; {error}"
        return f"{text}; tools/replay_step.py {path} computes it once more"

    def _origin(self, batch: TrainedBatch) -> tuple[bool, str]:
        """Whether it is in what this process computes, and where."""
        try:
            cause = first_cause(examine(self._model, batch))
        except Exception as error:  # memory, for example: no reason to lose what is known
            reason = " ".join(str(error).split())[:150]
            return False, f"where from could not be found ({type(error).__name__}: {reason})"
        if cause is None:
            return False, "computed once more, by itself, all is finite"
        if cause.what == "weight":
            return True, f"not finite before the step: {cause}"
        return True, f"first not finite: {cause}"
