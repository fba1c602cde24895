"""Evaluators built on Detectron2's, chosen by a dataset's ``evaluator_type``."""

from dnl_d2.evaluation.build import EVALUATORS, build_evaluator
from dnl_d2.evaluation.cityscapes import CityscapesSemSegEvaluator
from dnl_d2.evaluation.sem_seg import SemSegEvaluator

__all__ = ["EVALUATORS", "CityscapesSemSegEvaluator", "SemSegEvaluator", "build_evaluator"]
