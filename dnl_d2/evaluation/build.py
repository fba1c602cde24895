"""One table from a dataset's evaluator_type to its evaluator."""

import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
)

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.cityscapes import CityscapesSemSegEvaluator
from dnl_d2.evaluation.sem_seg import SemSegEvaluator


def _sem_seg(name: str, output_dir: str) -> DatasetEvaluator:
    return SemSegEvaluator(name, output_dir=os.path.join(output_dir, name))


def _cityscapes_sem_seg(name: str, output_dir: str) -> DatasetEvaluator:
    return CityscapesSemSegEvaluator(name, output_dir=os.path.join(output_dir, name))


def _coco(name: str, output_dir: str) -> DatasetEvaluator:
    return COCOEvaluator(name, output_dir=output_dir)


def _panoptic(name: str, output_dir: str) -> DatasetEvaluator:
    parts = [_coco(name, output_dir), COCOPanopticEvaluator(name, output_dir)]
    return DatasetEvaluators([_sem_seg(name, output_dir), *parts])


EVALUATORS = {
    "sem_seg": _sem_seg,
    "coco": _coco,
    "coco_panoptic_seg": _panoptic,
    "lvis": lambda name, output_dir: LVISEvaluator(name, output_dir=output_dir),
    # Detectron2's own imports a package that is not public since December 2024.
    "cityscapes_sem_seg": _cityscapes_sem_seg,
    "cityscapes_instance": lambda name, output_dir: CityscapesInstanceEvaluator(name),
}


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """The evaluator of a registered dataset.

    Args:
        dataset_name: its metadata's ``evaluator_type`` is a key of :data:`EVALUATORS`.
        output_dir: evaluators of semantic segmentation write to its folder ``dataset_name``.

    Raises:
        UsageError: the dataset's metadata name no evaluator_type, or one not in the table; or what
            the evaluator finds wrong with the dataset.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    if kind not in EVALUATORS:
        raise UsageError(
            f"dataset {dataset_name!r} has evaluator_type {kind!r}; set its metadata to one of "
            f"{', '.join(EVALUATORS)}"
        )
    return EVALUATORS[kind](dataset_name, output_dir)
