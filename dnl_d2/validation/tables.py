"""The result of an inspection as text and as plain data."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from dnl_d2.validation.findings import first_of
from dnl_d2.validation.inspection import Inspection
from dnl_d2.validation.summary import SetSummary

_SHOWN = 6  # sizes, modes
_MOST_OTHERS = 20  # values that are no class
_MOST_COLORS = 300


def as_text(inspection: Inspection) -> str:
    """Figures of each set and a table of label values."""
    parts = [_overview(summary) for summary in inspection.summaries]
    parts.append(_value_table(inspection))
    parts += [_color_table(s) for s in inspection.summaries if s.colors]
    return "\n\n".join(part for part in parts if part)


def as_data(inspection: Inspection) -> dict[str, Any]:
    """Every figure, ready for JSON."""
    return {
        "errors": inspection.errors,
        "warnings": len(inspection.findings) - inspection.errors,
        "findings": [{"set": name} | asdict(finding) for name, finding in inspection.findings],
        "classes": inspection.classes,
        "class_weights": inspection.weights,
        "sets": {s.source.name: _set_data(s) for s in inspection.summaries},
    }


def _set_data(summary: SetSummary) -> dict[str, Any]:
    return {
        "pairs": len(summary.source.pairs),
        "ignore_label": summary.source.ignore_label,
        "image_sizes": {f"{w}x{h}": n for (h, w), n in summary.sizes.most_common()},
        "image_modes": dict(summary.image_modes),
        "label_modes": dict(summary.label_modes),
        "label_pixels": summary.pixels,
        "ignored_pixels": summary.ignored,
        "values": {
            str(value): {"pixels": summary.values[value], "labels": summary.images_with[value]}
            for value in sorted(summary.values)
        },
        "colors": {f"#{code:06x}": n for code, n in summary.colors.most_common(_MOST_COLORS)},
    }


def _overview(summary: SetSummary) -> str:
    sizes = Counter({f"{w}x{h}": n for (h, w), n in summary.sizes.items()})
    lines = [
        f"{summary.source.name}: {len(summary.source.pairs)} pairs",
        f"  image sizes (width x height): {_counted(sizes)}",
        f"  image modes: {_counted(summary.image_modes)}",
        f"  label modes: {_counted(summary.label_modes)}",
        f"  ignored: {summary.ignore_share:.2%} of the label pixels",
    ]
    return "\n".join(lines if summary.source.pairs else lines[:1])


def _counted(counter: Counter) -> str:
    counted = [f"{key} ({count})" for key, count in counter.most_common()]
    return first_of(counted, _SHOWN) or "none could be read"


def _value_table(inspection: Inspection) -> str:
    summaries = inspection.summaries
    pixels = sum((s.values for s in summaries), Counter())
    if not pixels:
        return ""
    others = Counter({v: n for v, n in pixels.items() if not 0 <= v < len(inspection.classes)})
    values = [*range(len(inspection.classes)), *sorted(dict(others.most_common(_MOST_OTHERS)))]
    headers = ["value", "class"]
    for summary in summaries:
        headers += [f"{summary.source.name}\npixels %", "labels"]
    rows = [
        [value, _meaning(value, inspection)]
        + [cell for s in summaries for cell in (_percent(s, value), s.images_with[value])]
        + inspection.weights[value : value + 1]
        for value in values
    ]
    table = tabulate(rows, [*headers, *(["weight"] if inspection.weights else [])], floatfmt=".4g")
    more = len(others) - _MOST_OTHERS
    return table + (f"\nand {more} rarer values" if more > 0 else "")


def _meaning(value: int, inspection: Inspection) -> str:
    if any(s.is_ignored(value) for s in inspection.summaries):
        return "(ignored)"
    if 0 <= value < len(inspection.classes):
        return inspection.classes[value]
    return "(no class)" if inspection.classes else ""


def _percent(summary: SetSummary, value: int) -> float:
    return 100 * summary.values[value] / max(summary.pixels, 1)


def _color_table(summary: SetSummary) -> str:
    total = summary.colors.total()
    rows = [
        [f"({code >> 16}, {code >> 8 & 255}, {code & 255})", 100 * count / total]
        for code, count in summary.colors.most_common(24)
    ]
    title = f"{summary.source.name}: colours in the labels"
    if len(summary.colors) > len(rows):
        title += f" (the first of {len(summary.colors)})"
    return f"{title}\n" + tabulate(rows, ["RGB", "pixels %"], floatfmt=".4g")
