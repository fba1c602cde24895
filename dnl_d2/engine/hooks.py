"""The hooks of every run."""

import logging
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.engine import SimpleTrainer, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from dnl_d2.checkpoint import read_weights
from dnl_d2.checkpoint.checkpointer import Checkpointer
from dnl_d2.checkpoint.run_checkpoints import BEST
from dnl_d2.data.stream import TrainingStream
from dnl_d2.engine.interruption import StopRequest, StopWhenAsked
from dnl_d2.engine.reports import TrainingReport, showing_pictures, with_own_writers
from dnl_d2.engine.resume_hooks import EvalHook, PeriodicCheckpointer, ResumeNotes
from dnl_d2.engine.spec import RunSpec
from dnl_d2.errors import UsageError
from dnl_d2.modeling.compilation import uncompiled
from dnl_d2.reporting.wandb_writer import WandbWriter

_log = logging.getLogger(__name__)

# By evaluator_type: figures of which the first that an evaluation reports decides.
_METRICS = {
    "sem_seg": ("sem_seg/mIoU",),
    "classification": ("classification/top1",),
    "cityscapes_sem_seg": ("sem_seg/mIoU",),
    "coco": ("segm/AP", "bbox/AP"),
    "lvis": ("segm/AP", "bbox/AP"),
    "cityscapes_instance": ("segm/AP",),
    "coco_panoptic_seg": ("panoptic_seg/PQ",),
}


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which here notes the figure in ``model_best.pth`` itself.

    A run that is resumed reads it there. The checkpoint it goes on from was written before the
    evaluation of its iteration, and knows nothing of its figures.

    Args:
        eval_period: iterations between evaluations.
        checkpointer: saves the best weights.
        metrics: figures; the first that is reported decides.
    """

    def __init__(self, eval_period: int, checkpointer: Checkpointer, metrics: Sequence[str]):
        super().__init__(eval_period, checkpointer, metrics[-1], file_prefix=BEST)
        self._metrics = metrics
        self._decided_by: str | None = None  # None where only the figure is known

    def before_train(self) -> None:
        path = os.path.join(self._checkpointer.save_dir, f"{BEST}.pth")
        if self.trainer.start_iter == 0 or not os.path.isfile(path):
            self.best_metric = None
            return
        try:
            best = read_weights(path).rest
        except UsageError as error:
            _log.warning(f"{error}; the next evaluation's weights take its place")
            self.best_metric = None
            return
        if best.get("metric") in self._metrics and isinstance(best.get("figure"), float):
            self._decided_by = best["metric"]
            self.best_metric, self.best_iter = best["figure"], best.get("iteration")
        if any(metric in self.trainer.storage.latest() for metric in self._metrics):
            self._best_checking()  # an evaluation that was made up for

    def after_train(self) -> None:
        """Looks at the last evaluation, where training came to it."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

    def _best_checking(self) -> None:
        known = self.trainer.storage.latest()
        metric = next((m for m in self._metrics if m in known), None)
        if metric is None:
            _log.warning(
                f"{BEST}.pth is not written: the evaluation reports no {self._metrics[-1]}"
            )
            return
        figure, iteration = known[metric]
        if not math.isfinite(figure):
            return
        same = self.best_metric is not None and self._decided_by in (None, metric)
        if same and figure <= self.best_metric:
            _log.info(
                f"{BEST}.pth stays that of iteration {self.best_iter} with {metric} "
                f"{self.best_metric:.4f}: now it is {figure:.4f}"
            )
            return
        self.best_metric, self.best_iter, self._decided_by = figure, iteration, metric
        self._checkpointer.save(BEST, iteration=iteration, metric=metric, figure=figure)
        _log.info(f"{BEST}.pth: {metric} {figure:.4f} at iteration {iteration}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the best figure from a checkpoint of a version that noted it there."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


class PreciseBN(hooks.PreciseBN):
    """Detectron2's hook, with the batches that come next in the training.

    So they are the same ones where a run was interrupted before. The hook's own hooks at the norms
    a compiled model would not call.

    Args:
        period: iterations between updates.
        model: has norms in training mode.
        step: trains on a TrainingStream.
        num_iter: batches for an update.
    """

    def __init__(self, period: int, model: nn.Module, step: SimpleTrainer, num_iter: int):
        super().__init__(period, model, None, num_iter)
        self._step = weakref.proxy(step)  # which holds its hooks
        self._stream: TrainingStream | None = None

    def update_stats(self) -> None:
        training = self._step.data_loader
        self._stream = self._stream or training.reseeded(training.seed)
        self._stream.start = training.start + self.trainer.iter + 1 - self.trainer.start_iter
        self._data_iter = iter(self._stream)
        with uncompiled():
            super().update_stats()
        self._data_iter = None  # and with it the processes that load


class PeriodicWriter(hooks.PeriodicWriter):
    """Detectron2's hook, which tells writers whether the run goes on with an earlier one."""

    def before_train(self) -> None:
        for writer in self._writers:
            if isinstance(writer, WandbWriter):
                writer.start(resumed=self.trainer.start_iter > 0)


def build_hooks(
    spec: RunSpec,
    model: nn.Module,
    checkpointer: Checkpointer,
    step: SimpleTrainer,
    schedule: Any,
    evaluate: Callable[[], dict] | None,
    build_writers: Callable[[], list[EventWriter]],
    stop: StopRequest | None = None,
) -> list[hooks.HookBase | None]:
    """Those of Detectron2's DefaultTrainer in its order, with best weights and reports.

    Args:
        spec: the run.
        model: as it is trained.
        checkpointer: of the model and the loop.
        step: with optimizer and loader, before a checkpoint is loaded.
        schedule: of the learning rate.
        evaluate: returns figures; None for no evaluation.
        build_writers: of figures.
        stop: asks for an early end of the run; None where nothing does.
    """
    main = comm.is_main_process()
    precise = None
    if spec.precise_bn and get_bn_modules(model):
        precise = PreciseBN(spec.eval_period, model, step, spec.precise_bn)
    shown = showing_pictures(spec, checkpointer.model, evaluate) if evaluate else None
    stopping = StopWhenAsked(stop, checkpointer) if stop is not None else None
    if stopping and shown:
        shown = stopping.abandoning(shown)
    writers = with_own_writers(spec, build_writers()) if main else []
    return [
        hooks.IterationTimer(),
        ResumeNotes(step.optimizer) if main else None,
        hooks.LRScheduler(scheduler=schedule),
        precise,
        PeriodicCheckpointer(checkpointer, **spec.checkpoints) if main else None,
        stopping,
        EvalHook(spec.eval_period, shown, spec.output_dir) if shown else None,
        best_checkpoint_hook(spec.test_sets, spec.eval_period, checkpointer),
        TrainingReport(spec, checkpointer.model, step) if main else None,
        PeriodicWriter(writers, period=spec.log_period) if main else None,
    ]


def best_checkpoint_hook(
    test_sets: Sequence[str], eval_period: int, checkpointer: Checkpointer
) -> BestCheckpointer | None:
    """Keeps ``model_best.pth`` by mIoU, AP of masks, else of boxes, PQ, or top-1 accuracy.

    Returns:
        None where there is no single test set, and in all processes but the main one.
    """
    kinds = [MetadataCatalog.get(name).get("evaluator_type", None) for name in test_sets]
    if len(kinds) != 1 or kinds[0] not in _METRICS or not comm.is_main_process():
        return None
    return BestCheckpointer(eval_period, checkpointer, _METRICS[kinds[0]])
