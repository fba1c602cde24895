"""Detectron2's semantic-segmentation evaluator, with checks, a table and a confusion matrix."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import chain

import numpy as np
from detectron2 import evaluation
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from torch import Tensor

from dnl_d2.data import evaluation_label_reader
from dnl_d2.data.images import image_size
from dnl_d2.errors import UsageError
from dnl_d2.evaluation.confusion_report import per_class_table, prepare_folder, write_report

_logger = logging.getLogger(__name__)


class SemSegEvaluator(evaluation.SemSegEvaluator):
    """:class:`detectron2.evaluation.SemSegEvaluator` that says what is wrong and where.

    The figures are Detectron2's, under its names: ``mIoU, fwIoU, mACC, pACC, IoU-<class>,
    ACC-<class>``, in %. A class without a labelled pixel is NaN and left out of the means, even
    where it is predicted. Counts are summed over processes through ``detectron2.utils.comm``: no
    folder has to be shared, and only the main process writes.

    Args:
        dataset_name: a registered dataset whose records all have a ``sem_seg_file_name``.
        output_dir: for ``sem_seg_evaluation.json``, ``per_class.csv``, ``confusion_matrix.csv``
            and ``confusion_matrix.png``; None writes nothing.
        boundary_iou: Detectron2's boundary IoU as well; slow.
        save_predictions: Detectron2's ``sem_seg_predictions.json`` as well, which holds every
            prediction in memory until the end.

    Raises:
        UsageError: the dataset is empty, has no class names, or an image has no label.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        boundary_iou: bool = False,
        save_predictions: bool = False,
    ):
        meta = MetadataCatalog.get(dataset_name)
        classes, ignore_label = meta.get("stuff_classes"), meta.get("ignore_label", None)
        if not classes:
            raise UsageError(f"dataset {dataset_name} has no stuff_classes: set them in metadata")
        reader = evaluation_label_reader(
            num_classes=len(classes), ignore_label=255 if ignore_label is None else ignore_label
        )
        _require_labels(dataset_name)
        super().__init__(
            dataset_name,
            output_dir=output_dir if save_predictions else None,
            sem_seg_loading_fn=reader,
            # The argument is deprecated: only for metadata that do not say.
            ignore_label=255 if ignore_label is None else None,
        )
        self._logger = _logger.getChild("figures")
        self._logger.setLevel(logging.WARNING)  # report() gives them as a table
        self._folder = output_dir
        self._save_predictions = save_predictions
        self._compute_boundary_iou: bool = boundary_iou and self._compute_boundary_iou

    def reset(self) -> None:
        """Starts anew.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        super().reset()
        self._seen: list[str] = []
        if self._folder and comm.is_main_process():
            prepare_folder(self._folder)

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict[str, Tensor]]) -> None:
        """Counts one batch.

        Args:
            inputs: records with a file_name.
            outputs: ``{"sem_seg": (K, H, W) logits or probabilities}`` per record.

        Raises:
            UsageError: scores that are NaN or of the wrong shape; a label that cannot be read or
                holds a value out of range; the message names the file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            name, scores = record["file_name"], output["sem_seg"]
            check_scores(name, scores, len(self._class_names))
            label = self.label_of(name)
            size = image_size(label, kind="label")
            if tuple(scores.shape[1:]) != size:
                raise UsageError(
                    f"the prediction for {name} is {scores.shape[1]}x{scores.shape[2]} (height x "
                    f"width) but its label {label} is {size[0]}x{size[1]}: image and label must "
                    "be of one size"
                )
            self._seen.append(name)
        super().process(inputs, outputs)

    def count(self, file_name: str, confusion: np.ndarray) -> None:
        """Adds an image that was counted elsewhere: ``(K, K)`` pixels, rows = truth."""
        self._seen.append(file_name)
        self._conf_matrix[:-1, :-1] += confusion.T

    def label_of(self, file_name: str) -> str:
        """The label of an image of this dataset.

        Raises:
            UsageError: the image belongs to another dataset.
        """
        try:
            return self.input_file_to_gt_file[file_name]
        except KeyError:
            raise UsageError(
                f"image {file_name} is not in dataset {self._dataset_name}: loader and evaluator "
                "must read the same dataset"
            ) from None

    def evaluate(self) -> OrderedDict | None:
        """``{"sem_seg": figures}`` in the main process, None in others; empty without labels."""
        figures = self.figures()
        if figures:
            self.report(figures)
            return OrderedDict(sem_seg=figures)
        return None if figures is None else OrderedDict()

    def figures(self) -> dict[str, float] | None:
        """Sums over processes; to be called in all of them.

        Returns:
            The figures in the main process, empty where no pixel is labelled; None in others.
        """
        seen = comm.gather(self._seen)
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN says it already
            results = super().evaluate()
        if results is None:
            return None
        self._warn_of_coverage(Counter(chain.from_iterable(seen)))
        if not self.confusion.any():
            _logger.warning(f"{self._dataset_name}: no labelled pixel, hence no figures")
            return {}
        return results["sem_seg"]

    @property
    def confusion(self) -> np.ndarray:
        """``(K, K)`` pixels, rows = truth; over all processes once :meth:`figures` was called."""
        return self._conf_matrix[:-1, :-1].T

    def report(self, figures: dict[str, float]) -> None:
        """Logs the classes as a table and writes the files.

        Raises:
            UsageError: a file cannot be written.
        """
        names, counts = self._class_names, self.confusion
        table = per_class_table(names, counts, figures)
        averages = ", ".join(f"{k} {v:.2f}" for k, v in figures.items() if "-" not in k)
        _logger.info(f"{self._dataset_name}, in %: {averages}\n{table}")
        absent = [n for n in names if np.isnan(figures[f"IoU-{n}"])]
        if absent:
            _logger.info(
                f"{len(absent)} classes without a labelled pixel are left out of the means: "
                f"{', '.join(absent)}"
            )
        if self._folder:
            write_report(self._folder, classes=names, confusion=counts, figures=figures)
            _logger.info(f"Figures and confusion matrix are in {self._folder}")

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """Detectron2's run-length encoding, only where it is wanted."""
        if not self._save_predictions:
            return []
        return super().encode_json_sem_seg(sem_seg, input_file_name)

    def _warn_of_coverage(self, seen: Counter) -> None:
        missing = len(self.input_file_to_gt_file) - len(seen)
        twice = [name for name, times in seen.items() if times > 1]
        if missing:
            _logger.warning(f"{self._dataset_name}: {missing} images were not evaluated")
        if twice:
            _logger.warning(
                f"{self._dataset_name}: {len(twice)} images were evaluated more than once, "
                f"such as {twice[0]}"
            )


def check_scores(file_name: str, scores: Tensor, num_classes: int) -> None:
    """Raises :class:`UsageError` for scores whose argmax would mean nothing.

    Args:
        file_name: the image, for the message.
        scores: ``(K, H, W)``.
        num_classes: the K there should be.
    """
    if scores.dim() != 3 or len(scores) != num_classes:
        raise UsageError(
            f"the prediction for {file_name} has shape {tuple(scores.shape)}, but the dataset has "
            f"{num_classes} classes: it must be ({num_classes}, height, width)"
        )
    if scores.isnan().any():
        raise UsageError(
            f"the prediction for {file_name} holds NaN: the weights are broken (a diverged run?) "
            "or the precision is too low for them"
        )


def _require_labels(dataset_name: str) -> None:
    records = DatasetCatalog.get(dataset_name)
    if not records:
        raise UsageError(f"dataset {dataset_name} is empty: there is nothing to evaluate")
    unlabelled = [r["file_name"] for r in records if not r.get("sem_seg_file_name")]
    if unlabelled:
        raise UsageError(
            f"dataset {dataset_name}: {len(unlabelled)} of {len(records)} images have no label "
            f"(sem_seg_file_name), such as {unlabelled[0]}: evaluate a labelled split"
        )
