"""Preparing the published datasets: from the files of their archives to the label maps that
training reads. ``tools/prepare_dataset.py`` is the command line.
"""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.preparation.prepare import PREPARATIONS, prepare_dataset

__all__ = ["PREPARATIONS", "prepare_dataset"]
