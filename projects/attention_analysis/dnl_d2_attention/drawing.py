"""A picture of each block's statistics."""

import io
from collections.abc import Sequence
from typing import Any

from dnl_d2_attention.analysis import Figure
from dnl_d2_attention.report import Summary, summarize

_COLORS = {
    "input": "0.55", "output": "#7a4fa3", "pairwise": "#1f6fb4", "whitened": "#2a9d8f",
    "unary": "#d9822b", "uniform": "0.8",
}  # fmt: skip
_WITH_QUERY = ("pairwise", "whitened")


def draw(figures: Sequence[Figure], block: str, title: str) -> bytes:
    """Distances, logits, overlaps with the truth beside chance, and reach: a PNG.

    Args:
        figures: of an analysis.
        block: name of the block.
        title: what stands above.
    """
    from matplotlib.figure import Figure as Picture

    found = {(s.term, s.statistic): s for s in summarize(figures) if s.block == block}
    panels = [_distances, _divergences, _logits, _entropy, _reach, _overlaps]
    shown = [panel for panel in panels if panel(None, found)]
    columns = max(1, min(3, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    picture = Picture(figsize=(4.3 * columns, 3.2 * rows + 0.6), layout="constrained")
    picture.suptitle(title, fontsize=11)
    axes = picture.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, shown, strict=False):
        panel(axis, found)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    content = io.BytesIO()
    picture.savefig(content, dpi=110, format="png")
    return content.getvalue()


Found = dict[tuple[str, str], Summary]


def _bars(
    axis: Any,
    bars: list[tuple[str, Summary]],
    title: str,
    unit: str = "",
    inside: bool = False,
) -> None:
    names = [name for name, _ in bars]
    values = [summary.mean for _, summary in bars]
    errors = [summary.error or 0.0 for _, summary in bars]
    colors = [_COLORS.get(name.split("\n")[0], "#888888") for name in names]
    drawn = axis.bar(names, values, yerr=errors, color=colors, width=0.65, ecolor="0.3")
    place = {"label_type": "center", "color": "white"} if inside else {"padding": 2}
    axis.bar_label(drawn, [f"{value:.3g}" for value in values], fontsize=8, **place)
    axis.set_title(title, fontsize=10)
    axis.set_ylabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(y=0.18)
    axis.set_ylim(bottom=0)


def _of(found: Found, statistic: str) -> list[tuple[str, Summary]]:
    return [(term, summary) for (term, name), summary in found.items() if name == statistic]


def _distances(axis: Any, found: Found) -> bool:
    bars = _of(found, "cosine_distance")
    order = ["input", *_WITH_QUERY, "output"]
    bars.sort(key=lambda bar: order.index(bar[0]) if bar[0] in order else len(order))
    if axis is not None:
        _bars(axis, bars, "mean cosine distance of positions", "0: all alike, 0.5: unrelated")
    return bool(bars)


def _divergences(axis: Any, found: Found) -> bool:
    bars = _of(found, "pair_divergence")
    if axis is not None:
        _bars(axis, bars, "Jensen-Shannon divergence of two maps", "nats, at most 0.693")
        axis.set_ylim(0, 0.72)
    return bool(bars)


def _logits(axis: Any, found: Found) -> bool:
    names = {"whitened": "pairwise_share", "unary": "unary_share"}
    bars = [(n, found["logits", key]) for n, key in names.items() if ("logits", key) in found]
    if axis is not None:
        _bars(axis, bars, "share of the logits' variance")
        axis.set_ylim(0, 1.12)
    return bool(bars)


def _entropy(axis: Any, found: Found) -> bool:
    bars = _of(found, "entropy_share")
    if axis is not None:
        _bars(axis, bars, "entropy of the maps", "share of a uniform map's")
        axis.set_ylim(0, 1.12)
    return bool(bars)


def _reach(axis: Any, found: Found) -> bool:
    bars = _of(found, "reach")
    if axis is not None:
        _bars(axis, bars, "distance attended to", "cells")
    return bool(bars)


def _overlaps(axis: Any, found: Found) -> bool:
    pairs = [
        (f"{term}\n{what}", found[term, name], found[term, f"{name}_chance"])
        for name, what in (("own_region", "own region"), ("boundary", "boundary"))
        for term in (*_WITH_QUERY, "unary")
        if (term, name) in found
    ]
    if axis is not None and pairs:
        bars = [(name, own) for name, own, _ in pairs]
        _bars(axis, bars, "share of the weights (line: chance)", inside=True)
        for place, (_, _, chance) in enumerate(pairs):
            axis.hlines(chance.mean, place - 0.42, place + 0.42, color="k", linewidth=1.5)
        axis.tick_params(axis="x", labelsize=6.5)
    return bool(pairs)
