"""LVIS: Gupta et al., CVPR 2019."""

from types import SimpleNamespace

import numpy as np
from detectron2 import evaluation
from detectron2.utils import comm

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.confusion_report import prepare_folder


class LVISEvaluator(evaluation.LVISEvaluator):
    """Detectron2's evaluator of this name, with today's numpy; needs the package ``lvis``.

    Args:
        dataset_name: a registered dataset in LVIS's form.
        output_dir: gets ``lvis_instances_results.json`` and ``instances_predictions.pth``.

    Raises:
        UsageError: the package is missing.
    """

    def __init__(self, dataset_name: str, *, output_dir: str):
        require_lvis()
        super().__init__(dataset_name, output_dir=output_dir)

    def reset(self) -> None:
        """Starts anew.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        if comm.is_main_process():
            prepare_folder(self._output_dir)
        super().reset()


def require_lvis() -> None:
    """Raises :class:`UsageError` if the package ``lvis`` cannot be imported."""
    try:
        import lvis.eval as script
    except ImportError as error:
        raise UsageError(
            f"LVIS needs the package lvis ({error}): pip install --no-deps lvis==0.5.3 (without "
            "its dependencies, which would bring a second OpenCV)"
        ) from error
    if not hasattr(np, "float"):  # NumPy 1.24 dropped what lvis 0.5.3, the last release, calls
        script.np = SimpleNamespace(**vars(np), float=float)
