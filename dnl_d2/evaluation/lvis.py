"""LVIS: Gupta et al., CVPR 2019."""

from detectron2 import evaluation
from detectron2.utils import comm

from dnl_d2.compat import lvis_evaluation
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
        lvis_evaluation()
        super().__init__(dataset_name, output_dir=output_dir)

    def reset(self) -> None:
        """Starts anew.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        if comm.is_main_process():
            prepare_folder(self._output_dir)
        super().reset()
