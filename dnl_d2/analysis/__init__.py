"""What a model consists of and what it computes: parameters, multiply-adds, activations by part."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.analysis.counting import Count, OperationCounter
from dnl_d2.analysis.measure import Analysis, analyze
from dnl_d2.analysis.running import Regions
from dnl_d2.analysis.table import as_json, as_text

__all__ = [
    "Analysis",
    "Count",
    "OperationCounter",
    "Regions",
    "analyze",
    "as_json",
    "as_text",
]
