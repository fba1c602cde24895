"""Losses and accuracies of several runs beside each other."""

import io
import json
import os
from collections.abc import Sequence
from typing import Any

from dnl_d2.errors import UsageError
from dnl_d2.files import write_bytes

LOSS, ACCURACY = "total_loss", "classification/top1"


def read_curves(folder: str) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of a run's loss and top-1 accuracy.

    Raises:
        UsageError: the folder is not of a run that has been evaluated.
    """
    path = os.path.join(folder, "metrics.json")
    curves: dict[str, list[tuple[int, float]]] = {LOSS: [], ACCURACY: []}
    try:
        with open(path, encoding="utf-8") as file:
            rows: list[dict[str, Any]] = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no figures of a run ({error})") from error
    for row in rows:
        for key, points in curves.items():
            if key in row:
                points.append((row["iteration"], row[key]))
    if not curves[LOSS] or not curves[ACCURACY]:
        raise UsageError(f"{path}: the run has no loss or no accuracy of classes yet")
    return curves


def as_table(folders: Sequence[str]) -> str:
    """The last accuracy of each run, and its last loss, as Markdown."""
    lines = ["| run | top-1, % | loss | iterations |", "| --- | --- | --- | --- |"]
    for folder in folders:
        curves = read_curves(folder)
        iteration, accuracy = curves[ACCURACY][-1]
        loss = curves[LOSS][-1][1]
        lines.append(f"| {_name(folder)} | {accuracy:.2f} | {loss:.3f} | {iteration} |")
    return "\n".join(lines)


def draw_comparison(folders: Sequence[str], path: str, chance: float | None) -> None:
    """Writes a PNG: losses on the left, accuracies on the right.

    Args:
        folders: of runs.
        path: of the picture.
        chance: accuracy in percent to mark by a line; None for none.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, folder in enumerate(folders):
        curves, color = read_curves(folder), f"C{number // 2}"
        style = "-" if number % 2 == 0 else "--"  # neighbours share a colour
        for axes, key in ((left, LOSS), (right, ACCURACY)):
            axes.plot(*zip(*curves[key], strict=True), style, color=color, label=_name(folder))
    if chance is not None:
        right.axhline(chance, color="grey", linewidth=0.8, label="chance")
    left.set(xlabel="iteration", ylabel="training loss", yscale="log")
    right.set(xlabel="iteration", ylabel="validation top-1, %", ylim=(0, 102))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_bytes(path, content.getvalue())


def _name(folder: str) -> str:
    return os.path.basename(os.path.normpath(folder))
