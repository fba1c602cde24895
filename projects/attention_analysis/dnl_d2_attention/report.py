"""An analysis as CSV, JSON, a table and pictures."""

import csv
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tabulate import tabulate

from dnl_d2.files import write_text
from dnl_d2_attention.analysis import Analysis, Figure

REPORT = "attention.json"


@dataclass(frozen=True)
class Summary:
    """A statistic over all pictures.

    Attributes:
        block, term, statistic: see :class:`dnl_d2_attention.analysis.Figure`.
        mean: over pictures.
        error: standard error of the mean; None of a single picture.
        pictures: how many have it.
    """

    block: str
    term: str
    statistic: str
    mean: float
    error: float | None
    pictures: int


def summarize(figures: Sequence[Figure]) -> list[Summary]:
    """Means over pictures, in the order in which statistics came."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for figure in figures:
        values[figure.block, figure.term, figure.statistic].append(figure.value)
    return [Summary(*key, *_mean(numbers), len(numbers)) for key, numbers in values.items()]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def write(folder: str, analysis: Analysis, settings: Mapping[str, Any]) -> list[Summary]:
    """Writes ``per_picture.csv``, ``attention.csv`` and ``attention.json``.

    Raises:
        UsageError: a file cannot be written.
    """
    summaries = summarize(analysis.figures)
    write_text(os.path.join(folder, "per_picture.csv"), _csv(analysis.figures, Figure))
    write_text(os.path.join(folder, "attention.csv"), _csv(summaries, Summary))
    content = {
        "settings": dict(settings),
        "blocks": analysis.blocks,
        "statistics": [asdict(summary) for summary in summaries],
        "left_out": dict(analysis.left_out),
        "unreadable": analysis.unreadable,
    }
    path = os.path.join(folder, REPORT)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return summaries


def _csv(rows: Sequence[Any], kind: type) -> str:
    text = io.StringIO()
    names = [field.name for field in fields(kind)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({n: "" if v is None else v for n, v in asdict(row).items()} for row in rows)
    return text.getvalue()


def table(summaries: Sequence[Summary], block: str) -> str:
    """A line for each statistic of a block, a column for each term."""
    found = {(s.statistic, s.term): s for s in summaries if s.block == block}
    terms = list(dict.fromkeys(term for _, term in found))
    statistics = list(dict.fromkeys(name for name, _ in found))
    rows = [
        [name.replace("_", " "), *(_cell(found.get((name, term))) for term in terms)]
        for name in statistics
    ]
    return tabulate(rows, ["", *terms], tablefmt="github", disable_numparse=True)


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    error = "" if summary.error is None else f" ± {summary.error:.1g}"
    return f"{summary.mean:.3g}{error}"
