"""The official Cityscapes evaluation script, image by image and over several processes."""

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm

from dnl_d2.compat import cityscapes_evaluation
from dnl_d2.errors import UsageError


class CityscapesScript:
    """``cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling`` without its globals.

    Its own functions read, count and score. Pixels are integers, so their sum over processes is
    exact; weighted instance pixels are kept as terms and added in the order of the dataset, which
    gives the float the script gives for that order of files.

    Args:
        instances: whether to score instances (iIoU), which reads ``*_instanceIds.png``.

    Raises:
        UsageError: cityscapesscripts cannot be imported.
    """

    def __init__(self, *, instances: bool):
        self._script = cityscapes_evaluation("evalPixelLevelSemanticLabeling")
        self._args = copy.copy(self._script.args)
        self._args.evalInstLevelScore = instances
        self._args.evalPixelAccuracy = False
        self._args.quiet = True
        self._matrix = self._script.generateMatrix(self._args)
        self._stats = self._script.generateInstanceStats(self._args)
        for part in _parts(self._stats):
            part.update({key: _Terms() for key, value in part.items() if value == 0.0})

    def add(self, prediction: str, truth: str) -> np.ndarray:
        """Counts an image.

        Args:
            prediction: PNG of label ids.
            truth: its ``*_labelIds.png``.

        Returns:
            ``(34, 34)`` pixels of this image by label id, rows = truth.

        Raises:
            UsageError: what the script says about the files.
        """
        matrix = self._script.generateMatrix(self._args)
        with _one_line_errors(truth):
            self._script.evaluatePair(prediction, truth, matrix, self._stats, {}, self._args)
        self._matrix += matrix
        return matrix

    def scores(self) -> dict[str, float] | None:
        """Sums over processes, in all of which it must be called, and scores.

        Returns:
            In the main process, in %: ``IoU`` and ``IoU_sup`` (categories), with instances
            ``iIoU`` and ``iIoU_sup``, and each of them by name as in ``IoU-road``; else None.
        """
        parts = comm.gather((self._matrix, self._stats))
        if not comm.is_main_process():
            return None
        matrix = sum(m for m, _ in parts)
        stats = self._summed([s for _, s in parts])
        script, args = self._script, self._args
        labels = [script.id2label[i] for i in args.evalLabels]
        groups = script.category2labels
        found = {
            "IoU": {x.name: script.getIouScoreForLabel(x.id, matrix, args) for x in labels},
            "IoU_sup": {g: script.getIouScoreForCategory(g, matrix, args) for g in groups},
        }
        if args.evalInstLevelScore:
            found["iIoU"] = {
                x.name: script.getInstanceIouScoreForLabel(x.id, matrix, stats, args)
                for x in labels
            }
            found["iIoU_sup"] = {
                g: script.getInstanceIouScoreForCategory(g, matrix, stats, args) for g in groups
            }
        figures = {k: 100.0 * script.getScoreAverage(v, args) for k, v in found.items()}
        for kind, scores in found.items():
            figures.update({f"{kind}-{n}": 100.0 * s for n, s in scores.items() if s == s})
        return figures

    def _summed(self, parts: Sequence[dict]) -> dict:
        total = self._script.generateInstanceStats(self._args)
        for part in parts:
            for target, source in zip(_parts(total), _parts(part), strict=True):
                for key, terms in source.items():
                    if isinstance(terms, _Terms):
                        for value in terms:  # sum() would round differently
                            target[key] += value
        return total


class _Terms(list):
    """A number that the script adds to with ``+=``, which remembers what was added."""

    def __iadd__(self, value: float) -> "_Terms":  # type: ignore[misc, override]
        self.append(value)
        return self


def _parts(stats: dict) -> Iterator[dict[str, Any]]:
    for group in ("classes", "categories"):
        yield from stats[group].values()


@contextlib.contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """The script prints its errors and ends the process; here they become a UsageError."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except SystemExit:
        text = " ".join(printed.getvalue().split()).removeprefix("ERROR: ")
        raise UsageError(f"label {path}: cityscapesscripts says: {text}") from None
