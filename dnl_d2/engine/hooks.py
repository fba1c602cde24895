"""The hooks of every run."""

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from dnl_d2.checkpoint.checkpointer import BEST, Checkpointer
from dnl_d2.engine.spec import RunSpec

# By evaluator_type: figures of which the first that an evaluation reports decides.
_METRICS = {
    "sem_seg": ("sem_seg/mIoU",),
    "cityscapes_sem_seg": ("sem_seg/mIoU",),
    "coco": ("segm/AP", "bbox/AP"),
    "lvis": ("segm/AP", "bbox/AP"),
    "cityscapes_instance": ("segm/AP",),
    "coco_panoptic_seg": ("panoptic_seg/PQ",),
}


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which here remembers the best figure when a run is resumed.

    Args:
        eval_period: iterations between evaluations.
        checkpointer: saves the best weights.
        metrics: figures; the first that is reported decides.
    """

    def __init__(self, eval_period: int, checkpointer: Checkpointer, metrics: Sequence[str]):
        super().__init__(eval_period, checkpointer, metrics[-1], file_prefix=BEST)
        self._metrics = metrics

    def _best_checking(self) -> None:
        known = self.trainer.storage.latest()
        self._val_metric = next((m for m in self._metrics if m in known), self._metrics[-1])
        super()._best_checking()

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


def build_hooks(
    spec: RunSpec,
    model: nn.Module,
    checkpointer: Checkpointer,
    schedule: Any,
    evaluate: Callable[[], dict] | None,
    build_writers: Callable[[], list[EventWriter]],
) -> list[hooks.HookBase | None]:
    """Those of Detectron2's DefaultTrainer in its order, and the one that keeps the best weights.

    Args:
        spec: the run.
        model: as it is trained.
        checkpointer: of the model and the loop.
        schedule: of the learning rate.
        evaluate: returns figures; None for no evaluation.
        build_writers: of figures.
    """
    main = comm.is_main_process()
    precise = None
    if spec.precise_bn and get_bn_modules(model):
        loader = spec.build_train_loader()
        precise = hooks.PreciseBN(spec.eval_period, model, loader, spec.precise_bn)
    return [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=schedule),
        precise,
        hooks.PeriodicCheckpointer(checkpointer, **spec.checkpoints) if main else None,
        hooks.EvalHook(spec.eval_period, evaluate) if evaluate else None,
        best_checkpoint_hook(spec.test_sets, spec.eval_period, checkpointer),
        hooks.PeriodicWriter(build_writers(), period=spec.log_period) if main else None,
    ]


def best_checkpoint_hook(
    test_sets: Sequence[str], eval_period: int, checkpointer: Checkpointer
) -> BestCheckpointer | None:
    """Keeps ``model_best.pth`` by mIoU, AP of masks, else of boxes, or PQ.

    Returns:
        None where there is no single test set, and in all processes but the main one.
    """
    kinds = [MetadataCatalog.get(name).get("evaluator_type", None) for name in test_sets]
    if len(kinds) != 1 or kinds[0] not in _METRICS or not comm.is_main_process():
        return None
    return BestCheckpointer(eval_period, checkpointer, _METRICS[kinds[0]])
