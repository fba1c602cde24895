"""One table from a dataset's evaluator_type to Detectron2's evaluator."""

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    SemSegEvaluator,
)

from dnl_d2.data import evaluation_label_reader
from dnl_d2.errors import UsageError


def _sem_seg(name: str, output_dir: str) -> DatasetEvaluator:
    meta = MetadataCatalog.get(name)
    reader = evaluation_label_reader(
        num_classes=len(meta.stuff_classes), ignore_label=meta.get("ignore_label", 255)
    )
    return SemSegEvaluator(name, output_dir=output_dir, sem_seg_loading_fn=reader)


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
    # trainId labels; Detectron2's own evaluator imports a private package in recent versions.
    "cityscapes_sem_seg": _sem_seg,
    "cityscapes_instance": lambda name, output_dir: CityscapesInstanceEvaluator(name),
}


def build_evaluator(dataset_name: str, output_dir: str) -> DatasetEvaluator:
    """Detectron2's evaluator for a registered dataset.

    Raises:
        UsageError: the dataset's metadata name no evaluator_type, or one not in the table.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", None)
    if kind not in EVALUATORS:
        raise UsageError(
            f"dataset {dataset_name!r} has evaluator_type {kind!r}; set its metadata to one of "
            f"{', '.join(EVALUATORS)}"
        )
    return EVALUATORS[kind](dataset_name, output_dir)
