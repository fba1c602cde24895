"""Accuracy of whole-image classification: top-1, top-5 and by class."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.evaluation.confusion_report import prepare_folder, write_csv
from dnl_d2.files import write_text

_logger = logging.getLogger(__name__)


class ClassificationEvaluator(DatasetEvaluator):
    """Share of images, or videos, whose class is among the k best scores, in %.

    Where other classes have the score of the right one, they are taken to be before it: a model
    that gives all classes one score has not found any. Counts are summed over processes.

    Args:
        dataset_name: a dataset whose metadata have ``classes``, a list of names.
        output_dir: for ``classification_evaluation.json`` and ``per_class.csv``; None writes
            nothing.
        topk: values of k; those that are not below the number of classes say nothing and are left
            out.

    Raises:
        UsageError: the dataset has no class names.
    """

    def __init__(
        self, dataset_name: str, *, output_dir: str | None = None, topk: Sequence[int] = (1, 5)
    ):
        classes = MetadataCatalog.get(dataset_name).get("classes", None)
        if not classes or len(classes) < 2:
            raise UsageError(
                f"dataset {dataset_name} has no classes to tell apart: set `classes`, a list of "
                "two or more names, in its metadata"
            )
        self._name = dataset_name
        self._classes = list(classes)
        self._topk = [k for k in topk if k < len(self._classes)]
        self._folder = output_dir
        self.reset()

    def reset(self) -> None:
        """Starts anew.

        Raises:
            UsageError: nothing can be written to the output folder.
        """
        self._counts = np.zeros((len(self._classes), 1 + len(self._topk)), np.int64)
        if self._folder and comm.is_main_process():
            prepare_folder(self._folder)

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict[str, Tensor]]) -> None:
        """Counts one batch.

        Args:
            inputs: with ``"category_id"``, and for messages ``"file_name"``.
            outputs: ``{"scores": (K,)}`` per input, logits or probabilities.

        Raises:
            UsageError: scores that are not finite or of another number of classes; a class that
                there is not.
        """
        for record, output in zip(inputs, outputs, strict=True):
            name = record.get("file_name", f"an image of {self._name}")
            label, scores = int(record["category_id"]), output["scores"]
            if not 0 <= label < len(self._classes):
                raise UsageError(
                    f"{name} has class {label}, and {self._name} has {len(self._classes)} classes"
                )
            if scores.shape != (len(self._classes),):
                raise UsageError(
                    f"the model gives {name} scores of shape {tuple(scores.shape)}, and "
                    f"{self._name} has {len(self._classes)} classes"
                )
            if not scores.isfinite().all():
                raise UsageError(
                    f"the model gives {name} scores that are not finite (inf or nan): it has "
                    "diverged"
                )
            rank = int((scores >= scores[label]).sum())
            self._counts[label] += [1, *(rank <= k for k in self._topk)]

    def evaluate(self) -> OrderedDict | None:
        """``{"classification": {"top1": ..., "top5": ...}}`` in the main process, else None."""
        gathered = comm.gather(self._counts)
        if not comm.is_main_process():
            return None
        counts = np.sum(gathered, 0)
        images, *right = counts.sum(0).tolist()
        if not images:
            _logger.warning(f"{self._name}: nothing was evaluated, hence no figures")
            return OrderedDict()
        figures = {f"top{k}": 100 * n / images for k, n in zip(self._topk, right, strict=True)}
        said = ", ".join(f"{name} {value:.2f} %" for name, value in figures.items())
        _logger.info(f"{self._name}: {said} of {images}")
        if self._folder:
            self._write(counts, figures)
        return OrderedDict(classification=figures)

    def _write(self, counts: np.ndarray, figures: dict[str, float]) -> None:
        content = {"classification": figures, "images": int(counts[:, 0].sum())}
        path = os.path.join(self._folder or "", "classification_evaluation.json")
        write_text(path, json.dumps(content, indent=2) + "\n")
        rows = [
            (name, images, *(round(100 * n / images, 4) if images else "" for n in right))
            for name, (images, *right) in zip(self._classes, counts.tolist(), strict=True)
        ]
        header = ("class", "images", *(f"top{k}" for k in self._topk))
        write_csv(os.path.join(self._folder or "", "per_class.csv"), [header, *rows])
