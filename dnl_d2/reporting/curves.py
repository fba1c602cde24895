"""Loss, learning rate and figures of a run over its iterations, as a picture."""

import io
import json
import math
import os
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from dnl_d2.files import write_bytes
from dnl_d2.reporting.aside import only_warning

METRICS, CURVES = "metrics.json", "curves.png"
FIGURES = ("/mIoU", "/AP", "/PQ", "/top1")  # what their names end in
TOTAL, _PERCENT = "total_loss", "evaluation, %"

# By name: iterations and values.
Series = dict[str, tuple[list[int], list[float]]]


class CurvesWriter(EventWriter):
    """Draws ``curves.png`` from ``metrics.json`` whenever an evaluation is over, and at the end.

    Its place is behind the JSONWriter, whose file it reads: so a resumed run has all its past.

    Args:
        folder: of both files.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._evaluated = -1  # iteration of the last evaluation that is in the picture
        self._is_old = True  # whether something has been written since it was drawn

    def write(self) -> None:
        latest = get_event_storage().latest()
        self._is_old = True
        evaluated = max((n for key, (_, n) in latest.items() if key.endswith(FIGURES)), default=-1)
        if evaluated > self._evaluated:
            self._evaluated = evaluated
            self._draw()

    def close(self) -> None:
        """Draws what came after the last evaluation."""
        if self._is_old:
            self._draw()

    def _draw(self) -> None:
        self._is_old = False
        with only_warning(f"{CURVES} is not drawn"):
            draw_curves(os.path.join(self._folder, METRICS), os.path.join(self._folder, CURVES))


def draw_curves(metrics: str, path: str) -> None:
    """Writes the picture, unless there is no loss of two iterations yet.

    Args:
        metrics: a file of Detectron2's JSONWriter.
        path: of the PNG to write.

    Raises:
        WriteError: it cannot be written.
    """
    series = read_metrics(metrics) if os.path.isfile(metrics) else {}
    if len(series.get(TOTAL, ([], []))[0]) < 2:
        return
    content = io.BytesIO()
    _figure(series).savefig(content, format="png", dpi=100)
    write_bytes(path, content.getvalue())


def read_metrics(path: str) -> Series:
    """Finite numbers by name, in the order of iterations.

    Where a run was cut off and went on from an earlier checkpoint, what it did twice counts as it
    was the second time. Entries that were not finished are left out.
    """
    entries: dict[int, dict[str, Any]] = {}
    trained = -1
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line[line.rfind("{") :])  # behind the rest of a killed run's
                number = int(entry.pop("iteration"))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            if TOTAL in entry:  # figures may come behind a later loss
                if number <= trained:
                    entries = {n: values for n, values in entries.items() if n < number}
                trained = number
            entries.setdefault(number, {}).update(entry)
    series: Series = {}
    for number in sorted(entries):
        for name, value in entries[number].items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                numbers, values = series.setdefault(name, ([], []))
                numbers.append(number)
                values.append(value)
    return series


def was_evaluated(folder: str, iteration: int) -> bool:
    """Whether ``metrics.json`` in a folder has a figure of an evaluation in an iteration."""
    path = os.path.join(folder, METRICS)
    series = read_metrics(path) if os.path.isfile(path) else {}
    return any(iteration in series[name][0] for name in series if name.endswith(FIGURES))


def _figure(series: Series) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = [name for name in series if "loss" in name and name != TOTAL]
    figures = [name for name in series if name.endswith(FIGURES)]
    plots = [("loss", [TOTAL, *losses]), ("learning rate", ["lr"]), (_PERCENT, figures)]
    plots = [(label, [n for n in names if n in series]) for label, names in plots]
    plots = [(label, names) for label, names in plots if names]
    figure = Figure(figsize=(8, 0.6 + 2.6 * len(plots)), layout="constrained")
    FigureCanvasAgg(figure)  # a caller's backend stays as it is
    axes = figure.subplots(len(plots), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, names) in zip(axes, plots, strict=True):
        for name in names:
            _plot(axis, name, *series[name], marked=label == _PERCENT)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3, which="both")
        if label == "loss":
            _logarithmic(axis, [value for name in names for value in series[name][1]])
        if len(names) > 1 or label == _PERCENT:
            axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("iteration")
    return figure


def _plot(axis: Any, name: str, numbers: list[int], values: list[float], *, marked: bool) -> None:
    if marked:
        best = max(range(len(values)), key=values.__getitem__)
        text = f"{name}\nbest {values[best]:.2f}\nat {numbers[best]}"
        axis.plot(numbers, values, marker="o", markersize=3, label=text)
        return
    total = name == TOTAL
    axis.plot(
        numbers, values, color="black" if total else None, lw=1.6 if total else 0.9, label=name
    )


def _logarithmic(axis: Any, values: list[float]) -> None:
    """A logarithmic axis with plain numbers, unless a loss is zero or below."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if min(values) <= 0:
        return
    axis.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if max(values) / min(values) < 1e4 else (1.0,)
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
