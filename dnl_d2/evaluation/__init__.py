"""Detectron2's evaluators, chosen by a dataset's ``evaluator_type``."""

from dnl_d2.evaluation.build import EVALUATORS, build_evaluator

__all__ = ["EVALUATORS", "build_evaluator"]
