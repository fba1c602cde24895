"""Several runs beside each other: their curves in one picture, their last figures in a table."""

import io
import os
from collections.abc import Sequence

from tabulate import tabulate

from dnl_d2.errors import UsageError
from dnl_d2.files import write_bytes
from dnl_d2.reporting.curves import FIGURES, METRICS, TOTAL, Series, read_metrics


def read_runs(folders: Sequence[str], metric: str | None = None) -> tuple[str, dict[str, Series]]:
    """The figures of runs, and the metric that they are compared by.

    Args:
        folders: output folders of runs.
        metric: such as ``sem_seg/mIoU``; None for the first that all of them have.

    Returns:
        The metric, and figures by the folder's name.

    Raises:
        UsageError: a folder is not of a run, or the runs have no such metric in common.
    """
    runs: dict[str, Series] = {}
    for folder in folders:
        path = os.path.join(folder, METRICS)
        try:
            series = read_metrics(path)
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read ({error.strerror}): is {folder} the output folder of a run?"
            ) from error
        runs[_name(folder, folders)] = series
    known = [name for name in next(iter(runs.values()), {}) if name.endswith(FIGURES)]
    known = [name for name in known if all(name in series for series in runs.values())]
    if metric is None and known:
        return known[0], runs
    if metric is None or any(metric not in series for series in runs.values()):
        lacking = "have" if metric is None else f"do not all have {metric!r}; they have"
        raise UsageError(f"the runs {lacking} in common: {', '.join(known) or 'no figure'}")
    return metric, runs


def _name(folder: str, folders: Sequence[str]) -> str:
    """The last part of a path; all of it where two have the same."""
    name = os.path.basename(os.path.abspath(folder))
    return (
        name if [os.path.basename(os.path.abspath(f)) for f in folders].count(name) == 1 else folder
    )


def compare_text(metric: str, runs: dict[str, Series]) -> str:
    """A line for each run: its last figure, its best, its last loss."""
    rows = []
    for name, series in runs.items():
        iterations, values = series[metric]
        best = max(range(len(values)), key=values.__getitem__)
        loss = series.get(TOTAL, ([], []))[1]
        rows.append(
            [
                name, f"{values[-1]:.2f}", f"{values[best]:.2f}", iterations[best],
                f"{loss[-1]:.3g}" if loss else "", iterations[-1],
            ]
        )  # fmt: skip
    headers = ["run", metric, "best", "at", "loss", "iterations"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def draw_comparison(
    metric: str, runs: dict[str, Series], path: str, *, chance: float | None = None
) -> None:
    """Writes a PNG: training losses on the left, the metric on the right.

    Args:
        metric: see :func:`read_runs`.
        runs: see :func:`read_runs`.
        path: of the picture.
        chance: a figure to mark by a line, such as that of guessing.

    Raises:
        WriteError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, series in runs.items():
        if TOTAL in series:
            left.plot(*series[TOTAL], linewidth=1, label=name)
        right.plot(*series[metric], marker="o", markersize=3, label=name)
    if chance is not None:
        right.axhline(chance, color="grey", linewidth=0.8, linestyle=":", label="chance")
    left.set(xlabel="iteration", ylabel="training loss", yscale="log")
    right.set(xlabel="iteration", ylabel=metric)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_bytes(path, content.getvalue())
