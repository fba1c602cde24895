"""Evaluators built on Detectron2's, chosen by a dataset's ``evaluator_type``."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.evaluation.build import EVALUATORS, build_evaluator
from dnl_d2.evaluation.cityscapes import CityscapesSemSegEvaluator
from dnl_d2.evaluation.cityscapes_instance import CityscapesInstanceEvaluator
from dnl_d2.evaluation.classification import ClassificationEvaluator
from dnl_d2.evaluation.coco import COCOEvaluator
from dnl_d2.evaluation.lvis import LVISEvaluator
from dnl_d2.evaluation.sem_seg import SemSegEvaluator

__all__ = [
    "EVALUATORS",
    "COCOEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "ClassificationEvaluator",
    "LVISEvaluator",
    "SemSegEvaluator",
    "build_evaluator",
]
