"""Hooks that the YAML and the LazyConfig trainer share."""

from typing import Any

from detectron2.engine import hooks
from detectron2.utils import comm

from dnl_d2.checkpoint.training import BEST, TrainingCheckpointer

_METRICS = {"sem_seg": "sem_seg/mIoU", "cityscapes_sem_seg": "sem_seg/mIoU", "coco": "bbox/AP"}


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which here remembers the best figure when a run is resumed."""

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]


def best_checkpoint_hook(
    evaluator_types: list[str | None], eval_period: int, checkpointer: TrainingCheckpointer
) -> BestCheckpointer | None:
    """Keeps ``model_best.pth`` by mIoU (or box AP); None where there is no single test set."""
    if len(evaluator_types) != 1 or evaluator_types[0] not in _METRICS:
        return None
    if not comm.is_main_process():
        return None
    return BestCheckpointer(
        eval_period, checkpointer, _METRICS[evaluator_types[0]], file_prefix=BEST
    )
