"""What an evaluation leaves behind: a table in the log, CSV and JSON files, a confusion matrix."""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from tabulate import tabulate

from dnl_d2.errors import UsageError
from dnl_d2.files import write_bytes, write_text

_TABLE_ROWS = 50  # more classes than that go into further columns
_MAX_INCHES = 60.0


def prepare_folder(folder: str) -> None:
    """Creates a folder and writes to it, so that it fails now and not after the evaluation.

    Raises:
        UsageError: the folder cannot be created or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        raise UsageError(
            f"evaluation: cannot write to {folder} ({error.strerror}): name another output folder"
        ) from error


def write_report(
    folder: str, *, classes: Sequence[str], confusion: np.ndarray, figures: Mapping[str, float]
) -> None:
    """Writes ``sem_seg_evaluation.json``, ``per_class.csv`` and ``confusion_matrix.csv``/``.png``.

    Args:
        folder: an existing folder.
        classes: K names.
        confusion: ``(K, K)`` pixel counts, rows = truth.
        figures: in %, with ``IoU-<class>`` and ``ACC-<class>``. What is NaN becomes null in JSON
            and stays empty in CSV.

    Raises:
        UsageError: a file cannot be written.
    """
    plain = {k: None if math.isnan(v) else float(v) for k, v in figures.items()}
    write_text(f"{folder}/sem_seg_evaluation.json", json.dumps({"sem_seg": plain}, indent=2))
    per_class = [
        (name, plain[f"IoU-{name}"], plain[f"ACC-{name}"], truth, predicted)
        for name, truth, predicted in zip(
            classes, confusion.sum(1).tolist(), confusion.sum(0).tolist(), strict=True
        )
    ]
    header = ("class", "IoU", "ACC", "labelled_pixels", "predicted_pixels")
    write_csv(f"{folder}/per_class.csv", [header, *per_class])
    rows = [(name, *row) for name, row in zip(classes, confusion.tolist(), strict=True)]
    write_csv(f"{folder}/confusion_matrix.csv", [("truth \\ prediction", *classes), *rows])
    write_bytes(f"{folder}/confusion_matrix.png", draw_confusion(classes, confusion))


def per_class_table(
    classes: Sequence[str], confusion: np.ndarray, figures: Mapping[str, float]
) -> str:
    """IoU, accuracy and share of the labelled pixels of each class, in %; a dash for NaN."""
    share = 100.0 * confusion.sum(1) / max(confusion.sum(), 1)
    cells = [
        (name, *map(_percent, (figures[f"IoU-{name}"], figures[f"ACC-{name}"], part)))
        for name, part in zip(classes, share, strict=True)
    ]
    blocks = math.ceil(len(cells) / _TABLE_ROWS)
    height = math.ceil(len(cells) / blocks)
    rows = [list(chain.from_iterable(cells[i::height])) for i in range(height)]
    return tabulate(
        rows,
        headers=["class", "IoU", "ACC", "pixels"] * blocks,
        tablefmt="pipe",
        colalign=["left", "right", "right", "right"] * blocks,
        disable_numparse=True,
    )


def draw_confusion(classes: Sequence[str], confusion: np.ndarray) -> bytes:
    """Draws a row-normalised confusion matrix.

    Classes without a labelled pixel are grey rows. Up to 30 classes the cells hold their %.

    Args:
        classes: K names.
        confusion: ``(K, K)`` pixel counts, rows = truth.

    Returns:
        A PNG.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = len(classes)
    totals = confusion.sum(1, keepdims=True)
    share = np.divide(
        100.0 * confusion, totals, where=totals > 0, out=np.full(confusion.shape, np.nan)
    )
    cell = 0.36 if count <= 30 else 0.17
    side = min(cell * count + 2.5, _MAX_INCHES)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(share, cmap=colormaps["Blues"].with_extremes(bad="0.88"), vmin=0, vmax=100)
    names = [name.replace("$", r"\$") for name in classes]  # no formula
    axis.set_xticks(range(count), names, rotation=90, fontsize=8)
    axis.set_yticks(range(count), names, fontsize=8)
    axis.set_xlabel("prediction")
    axis.set_ylabel("truth")
    figure.colorbar(image, label="% of the class's pixels", shrink=0.6)
    if count <= 30:
        for row, column in zip(*np.nonzero(share >= 0.5), strict=True):
            value = share[row, column]
            shade = "white" if value > 60 else "black"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", size=7, color=shade)
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png")
    return content.getvalue()


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def write_csv(path: str, rows: Sequence[Sequence]) -> None:
    """Writes a table, the header its first row; whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
