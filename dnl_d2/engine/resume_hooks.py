"""Hooks for what a run that was interrupted has left undone, or does otherwise."""

import logging
import os
from collections.abc import Callable

import torch
from detectron2.engine import hooks
from detectron2.utils import comm

from dnl_d2.checkpoint.run_checkpoints import numbered
from dnl_d2.reporting.curves import was_evaluated

_log = logging.getLogger(__name__)


class ResumeNotes(hooks.HookBase):
    """Says where a resumed run does not do what its config asks for.

    Args:
        optimizer: as the config describes it: no checkpoint is loaded yet.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self._optimizer = optimizer
        self._rates = self._base_rates()

    def before_train(self) -> None:
        start, end = self.trainer.start_iter, self.trainer.max_iter
        if start == 0:
            return
        if start >= end:
            _log.warning(
                f"nothing is left to train: the checkpoint is of iteration {start}, the config "
                f"asks for {end}"
            )
        changed = [
            pair for pair in zip(self._base_rates(), self._rates, strict=True) if pair[0] != pair[1]
        ]
        if changed:
            kept, asked = changed[0]
            _log.warning(
                f"the run goes on with its own base learning rate {kept:g}, not the config's "
                f"{asked:g}: for another rate start a run in a new folder from these weights"
            )

    def _base_rates(self) -> list[float]:
        groups = self._optimizer.param_groups
        return [group.get("initial_lr", group["lr"]) for group in groups]


class EvalHook(hooks.EvalHook):
    """Detectron2's hook, which makes up for an evaluation that a run was killed in.

    The checkpoint that the run goes on from was written before it. That of a finished run is
    evaluated once more, under the same number.

    Args:
        eval_period, eval_function: see Detectron2's.
        folder: of the run.
    """

    def __init__(self, eval_period: int, eval_function: Callable[[], dict], folder: str):
        super().__init__(eval_period, eval_function)
        self._folder = folder

    def before_train(self) -> None:
        start, storage = self.trainer.start_iter, self.trainer.storage
        if start >= self.trainer.max_iter:  # nothing is left: the loop will count one more
            self.trainer.iter = start - 1
        if not self._period or start % self._period or not 0 < start < self.trainer.max_iter:
            return
        if comm.all_gather(was_evaluated(self._folder, start - 1))[0]:
            return
        _log.info(f"the evaluation of iteration {start - 1} is made up for")
        storage.iter = start - 1
        self._do_eval()
        storage.iter = start

    def after_train(self) -> None:
        """Evaluates what has been trained to the end, not what was ended in the last iteration."""
        self._eval_after_train &= self.trainer.iter >= self.trainer.max_iter
        super().after_train()


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which also does what a run that was killed has left to do.

    It deletes that run's checkpoints in their turn, and writes ``model_final.pth`` if that run did
    not come to it after its last iteration.
    """

    def before_train(self) -> None:
        super().before_train()
        start = self.trainer.start_iter
        if not start:
            return
        earlier = [path for n, path in numbered(self.checkpointer.save_dir) if n < start]
        self.recent_checkpoints = earlier[-(self.max_to_keep or 0) :]
        for path in earlier[: -len(self.recent_checkpoints)]:  # if it was killed before
            os.remove(path)
        final = f"{self.file_prefix}_final"
        if start == self.max_iter and final not in self.checkpointer.get_checkpoint_file():
            self.trainer.iter = start - 1
            self.checkpointer.save(final, iteration=start - 1)
