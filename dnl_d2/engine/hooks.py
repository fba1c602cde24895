"""Hooks that the YAML and the LazyConfig trainer share."""

from collections.abc import Sequence
from typing import Any

from detectron2.engine import hooks
from detectron2.utils import comm

from dnl_d2.checkpoint.training import BEST, TrainingCheckpointer

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

    def __init__(
        self, eval_period: int, checkpointer: TrainingCheckpointer, metrics: Sequence[str]
    ):
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


def best_checkpoint_hook(
    evaluator_types: list[str | None], eval_period: int, checkpointer: TrainingCheckpointer
) -> BestCheckpointer | None:
    """Keeps ``model_best.pth`` by mIoU, AP of masks, else of boxes, or PQ.

    Returns:
        None where there is no single test set, and in all processes but the main one.
    """
    if len(evaluator_types) != 1 or evaluator_types[0] not in _METRICS:
        return None
    if not comm.is_main_process():
        return None
    return BestCheckpointer(eval_period, checkpointer, _METRICS[evaluator_types[0]])
