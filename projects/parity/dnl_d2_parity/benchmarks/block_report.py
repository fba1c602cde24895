"""What a benchmark of blocks prints and draws from its results."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dnl_d2_parity.benchmarks.block_cases import PASSES, SIDES
from dnl_d2_parity.benchmarks.measuring import machine
from dnl_d2_parity.tables import markdown


def growth(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Time and memory over L of each block, pass and side that has several sizes."""
    columns = {
        "seconds": lambda r, side: r["seconds"].get(side, {}).get("median"),
        "extra MiB": lambda r, side: r["extra_mib"].get(side),
    }
    lines = []
    for phase, block, (column, value), side in itertools.product(
        PASSES, dict.fromkeys(r["block"] for r in results), columns.items(), SIDES
    ):
        same = [r for r in results if (r["block"], r["phase"]) == (block, phase)]
        points = {r["positions"]: value(r, side) for r in same}
        points = sorted((n, y) for n, y in points.items() if y is not None and y > 0)
        if len(points) > 1:
            x, y = zip(*points, strict=True)
            place = dict(phase=phase, block=block, column=column, side=side)
            lines.append(place | dict(x=x, y=y, exponent=_exponent(x, y)))
    return lines


def _exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of the best y = c x^p: the slope in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def table(results: Sequence[dict[str, Any]]) -> str:
    """A line for each case; ``-`` where there is no figure."""
    bars = any(r["time_bar"] or r["memory_bar"] for r in results)
    headers = ["block", "pass", "size", "ours (s)", "reference (s)", "ratio"]
    headers += ["ours (MiB)", "reference (MiB)", "ratio", "ours (launches)", "reference (launches)"]
    headers += ["difference", "GFLOP/s", "of product"]
    rows = []
    for r in results:
        ratio = r["ratio"]
        rate, product = (r["gflops"].get(name) for name in ("ours", "product"))
        row = [r["block"], r["phase"], r["size"]]
        row += [_range(r["seconds"].get(side)) for side in SIDES]
        row += [_number(ratio["seconds"], ".2f")]
        row += [_number(r["extra_mib"].get(side), ".1f") for side in SIDES]
        row += [_number(ratio["extra_mib"], ".1f")]
        row += ["+".join(map(str, r["launches"].get(side, "-"))) for side in SIDES]
        row += [_number(r["difference"], ".1e"), _number(rate, ".1f")]
        row += [_number(rate and rate / product, ".0%")]
        if bars:
            row += [_verdict(ratio["seconds"], r["time_bar"])]
            row += [_verdict(ratio["extra_mib"], r["memory_bar"])]
        rows.append(row)
    return markdown(rows, headers + ["time bar", "memory bar"] * bars)


def growth_table(lines: Sequence[dict[str, Any]]) -> str:
    """The fitted exponents."""
    found = {tuple(g[k] for k in ("phase", "block", "column", "side")): g for g in lines}
    cells = list(itertools.product(("seconds", "extra MiB"), SIDES))
    rows = []
    for phase, block in dict.fromkeys((g["phase"], g["block"]) for g in lines):
        fits = [found.get((phase, block, *cell), {}).get("exponent") for cell in cells]
        rows.append([block, phase, *("-" if p is None else f"L^{p:.2f}" for p in fits)])
    return markdown(rows, ["block", "pass", *(f"{column}, {side}" for column, side in cells)])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _range(seconds: dict[str, Any] | None) -> str:
    if seconds is None:
        return "-"
    low, middle, high = (f"{seconds[k]:.3g}" for k in ("min", "median", "max"))
    return f"{middle} ({low} to {high})"


def _verdict(ratio: float | None, bar: float | None) -> str:
    if bar is None or ratio is None:
        return _number(bar, "g")
    return f"{bar:g}, {'met' if ratio >= bar else 'missed'}"


def remarks(report: dict[str, Any]) -> Iterator[str]:
    """What the table has no column for."""
    results, s = report["results"], report["settings"]
    for r in results:
        name = f"{r['block']} {r['phase']} {r['size']}"
        if "ours_to_dot" in r["ratio"]:
            yield f"{name}: {r['ratio']['ours_to_dot']:.2f} times the time of our dot product"
        for side, note in r["notes"].items():
            yield f"{name}: {side}: {note}"
    found = next((r["hardware"] for r in results if "hardware" in r), None)
    if found:
        yield (
            f"C = {s['channels']}, C' = {s['inter_channels']}, batch {s['batch']}, {s['dtype']}"
            f"{', compiled' if s['compile'] else ''}; "
            f"{found['gpu'] or found['cpu']}, {machine(found)}; median of {s['runs']} runs "
            "(min to max)"
        )


def plot_growth(path: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws growth on logarithmic axes: a row for each pass, a column for each quantity.

    Args:
        path: of the picture.
        lines: each with ``phase``, ``column``, ``block``, ``side``, ``x`` (positions), ``y`` and
            ``exponent``.
    """
    from matplotlib.figure import Figure  # without pyplot: needs no screen

    rows, columns, blocks = (
        list(dict.fromkeys(line[key] for line in lines)) for key in ("phase", "column", "block")
    )
    figure = Figure(figsize=(7 * len(columns), 5 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for line in lines:
        panel = panels[rows.index(line["phase"])][columns.index(line["column"])]
        panel.loglog(
            line["x"],
            line["y"],
            "o-" if line["side"] == "ours" else "x--",
            color=f"C{blocks.index(line['block'])}",
            label=f"{line['block']}, {line['side']}: L^{line['exponent']:.2f}",
        )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            panels[i][j].set(title=row, xlabel="positions L", ylabel=column)
            panels[i][j].grid(which="both", alpha=0.3)
            if panels[i][j].has_data():
                panels[i][j].legend(fontsize="small")
    figure.savefig(path, dpi=120)
