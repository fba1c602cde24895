"""Verdicts on the bars of a GPU, and the table of them."""

from collections.abc import Mapping
from typing import Any

from dnl_d2_parity.benchmarks.gpu_cases import GpuCase
from dnl_d2_parity.benchmarks.measuring import machine
from dnl_d2_parity.tables import markdown


def result(case: GpuCase, figures: Mapping[str, Any]) -> dict[str, Any]:
    """A case's figures with ratios public / ours and whether its bars are met.

    Args:
        case: what was measured.
        figures: as :func:`gpu_runs.block` returns them, or a ``note`` why there are none.

    Returns:
        ``ratio`` has ``seconds`` and ``extra_mib``, None where that is no number. ``met`` is true
        if every bar is reached; of a case without figures it is false.
    """
    medians = {side: s["median"] for side, s in figures.get("seconds", {}).items()}
    ratio = {"seconds": _ratio(medians), "extra_mib": _ratio(figures.get("extra_mib", {}))}
    bars = {"seconds": case.time_bar, "extra_mib": case.memory_bar}
    reached = [(ratio[k] or 0) >= bar for k, bar in bars.items() if bar is not None]
    met = not figures.get("note") and all(reached)
    return {"case": case.name, "bars": bars, "ratio": ratio, "met": met, **figures}


def _ratio(values: Mapping[str, float | None]) -> float | None:
    ours, theirs = values.get("ours"), values.get("reference")
    return theirs / ours if ours and theirs and ours > 0 else None


def report(found: Mapping[str, Any]) -> str:
    """The table, and what it holds for."""
    results, hardware = found["results"], found["hardware"]
    headers = ["case", "public ms", "ours ms", "ratio", "bar", "met"]
    headers += ["public MiB", "ours MiB", "ratio", "bar", "difference"]
    missed = [r for r in results if not r["met"]]
    unmeasured = sum("note" in r for r in missed)
    verdict = f"{len(results) - len(missed)} of {len(results)} cases met"
    if found["settings"]["quick"]:
        verdict = f"a trial on small maps: no bars; {len(results) - len(missed)} cases ran"
    if unmeasured:
        verdict += f", {unmeasured} not measured"
    lines = [markdown([_row(r) for r in results], headers), ""]
    lines += [f"{r['case']}: {r['note']}" for r in results if "note" in r]
    lines.append(
        f"{verdict}; {found['seconds']:.0f} s; {hardware['gpu'] or hardware['cpu']}, "
        f"{machine(hardware)}; TF32 off; medians of {found['settings']['runs']} runs in turns"
    )
    return "\n".join(lines)


def _row(r: Mapping[str, Any]) -> list[str]:
    if "note" in r:
        return [r["case"], "-", "-", "-", _bar(r, "seconds"), "not measured", *"---", "-", "-"]
    judged = any(bar is not None for bar in r["bars"].values())
    seconds = [f"{1e3 * r['seconds'][side]['median']:.3f}" for side in ("reference", "ours")]
    mib = [_number(r["extra_mib"].get(side), ".1f") for side in ("reference", "ours")]
    return [
        r["case"],
        *seconds,
        _number(r["ratio"]["seconds"], ".2f"),
        _bar(r, "seconds"),
        ("yes" if r["met"] else "NO") if judged else "-",
        *mib,
        _number(r["ratio"]["extra_mib"], ".1f"),
        _bar(r, "extra_mib"),
        f"{r['difference']:.1e}",
    ]


def _bar(r: Mapping[str, Any], name: str) -> str:
    return _number(r["bars"][name], "g")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
