"""The legend of a result, as HTML."""

import html
from collections import Counter

from dnl_d2.prediction import Detections, Segmentation


def legend(result: Segmentation | Detections) -> str:
    """Names of what is there: classes with colour and share, or objects with their numbers."""
    if isinstance(result, Detections):
        counts = Counter(entry["class"] for entry in result.summary()["objects"]).most_common()
        entries = [f"{count} x {html.escape(name)}" for name, count in counts]
        return _lines(entries or ["no object found"])
    shares = result.summary()["shares"]
    return _lines(
        [
            f'<i style="background: rgb({", ".join(map(str, color))})"></i>{html.escape(name)} '
            f"<small>{_percent(shares[name])}</small>"
            for name, color in result.legend()
        ]
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "&lt; 1 %"


def _lines(entries: list[str]) -> str:
    return f'<div class="legend">{"".join(f"<span>{entry}</span>" for entry in entries)}</div>'
