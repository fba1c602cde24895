"""One table from a dataset's evaluator_type to its evaluator."""

import os
from collections.abc import Callable, Sequence

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator, DatasetEvaluators

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.cityscapes import CityscapesSemSegEvaluator
from dnl_d2.evaluation.cityscapes_instance import CityscapesInstanceEvaluator
from dnl_d2.evaluation.classification import ClassificationEvaluator
from dnl_d2.evaluation.coco import COCOEvaluator
from dnl_d2.evaluation.lvis import LVISEvaluator
from dnl_d2.evaluation.sem_seg import SemSegEvaluator


def _panoptic(name: str, *, output_dir: str) -> DatasetEvaluator:
    kinds = (SemSegEvaluator, COCOEvaluator, COCOPanopticEvaluator)
    return DatasetEvaluators([kind(name, output_dir=output_dir) for kind in kinds])


EVALUATORS: dict[str, Callable[..., DatasetEvaluator]] = {
    "sem_seg": SemSegEvaluator,
    "classification": ClassificationEvaluator,
    "coco": COCOEvaluator,
    "coco_panoptic_seg": _panoptic,
    "lvis": LVISEvaluator,
    # Detectron2's own import a package that is not public since December 2024.
    "cityscapes_sem_seg": CityscapesSemSegEvaluator,
    "cityscapes_instance": CityscapesInstanceEvaluator,
}


def build_evaluator(
    dataset_name: str, output_dir: str, *, kpt_oks_sigmas: Sequence[float] = ()
) -> DatasetEvaluator:
    """The evaluator of a registered dataset.

    Args:
        dataset_name: its metadata's ``evaluator_type`` is a key of :data:`EVALUATORS`.
        output_dir: the evaluator writes to its folder ``dataset_name``.
        kpt_oks_sigmas: of COCO keypoints that are not COCO's 17, as in TEST.KEYPOINT_OKS_SIGMAS.

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
    options = {"kpt_oks_sigmas": kpt_oks_sigmas} if kind == "coco" else {}
    folder = os.path.join(output_dir, dataset_name)
    return EVALUATORS[kind](dataset_name, output_dir=folder, **options)
