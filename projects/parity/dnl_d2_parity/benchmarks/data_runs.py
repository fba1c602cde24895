"""A mapper and mmsegmentation's pipeline in turns on the same pictures."""

import importlib.util
from collections.abc import Callable
from typing import Any

from detectron2.utils.env import seed_all_rng

from dnl_d2.data import SemSegMapper, png
from dnl_d2_parity.benchmarks import data_parts, measuring
from dnl_d2_parity.tables import markdown


def measure(mapper: SemSegMapper, records: list[dict], rounds: int) -> dict[str, Any]:
    """Prepares every picture ``rounds`` times on each side, in turns.

    Returns:
        Milliseconds of a picture by side and part (means), the ratio of both sides' sums in each
        round, why the reference is left out if it is, and what the figures hold for.
    """
    reference, reason = _reference(mapper)
    sides: dict[str, Callable] = {"ours": _ours(mapper)}
    if reference:
        sides["mmsegmentation"] = reference
    for record in records:  # untimed: files come into memory, libraries set up, a cache fills
        for side in sides.values():
            side(record, data_parts.Clock())
    clocks = [{name: data_parts.Clock() for name in sides} for _ in range(rounds)]
    for number, round_clocks in enumerate(clocks):
        for place, record in enumerate(records):
            for name, side in sides.items():
                seed_all_rng(1 + place + number * len(records))
                side(record, round_clocks[name])
    sums = {name: [clock[name].seconds for clock in clocks] for name in sides}
    count = len(records) * rounds / 1e3
    return {
        "milliseconds": {
            name: {
                part: sum(seconds.get(part, 0.0) for seconds in all_rounds) / count
                for part in (*data_parts.PARTS, data_parts.WHOLE)
            }
            for name, all_rounds in sums.items()
        },
        "ratio": _ratio(sums) if reference else None,
        "left_out": reason,
        "png_decoder": "kornia_rs" if png.decode_image_png_u8 else "OpenCV",
        "hardware": measuring.hardware("cpu", 1),
    }


def _ratio(sums: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    theirs, ours = ([s[data_parts.WHOLE] for s in sums[k]] for k in ("mmsegmentation", "ours"))
    return measuring.summary([a / b for a, b in zip(theirs, ours, strict=True)])


def _ours(mapper: SemSegMapper) -> Callable:
    """As a whole by its own call, and then by part."""

    def run(record: dict, clock: data_parts.Clock) -> None:
        clock(data_parts.WHOLE, mapper, record)
        data_parts.time_ours(mapper, record, clock)

    return run


def _reference(mapper: SemSegMapper) -> tuple[Callable | None, str]:
    """mmsegmentation's side, or why there is none."""
    if importlib.util.find_spec("mmseg") is None:
        return None, (
            "mmsegmentation is not installed: pip install --no-deps -r requirements/parity.txt"
        )
    options = data_parts.reference_options(mapper.augmentations.augs)
    if options is None:
        return None, "mmsegmentation has no pipeline of these steps"
    from dnl_d2_parity.references import mmseg  # takes seconds, and may be missing

    pipeline = mmseg.transforms(*options)

    def run(record: dict, clock: data_parts.Clock) -> None:
        clock(data_parts.WHOLE, data_parts.time_reference, pipeline, record, clock)

    return run, ""


def report(found: dict[str, Any]) -> str:
    """The table and what it holds for."""
    sides = found["milliseconds"]
    lines = [*data_parts.PARTS, data_parts.WHOLE]
    rows = [
        [part, *(f"{side[part]:.2f}" for side in sides.values())]
        for part in lines
        if any(side[part] for side in sides.values())
    ]
    rate = [f"{1e3 / side[data_parts.WHOLE]:.1f}" for side in sides.values()]
    rows.append(["images a second per worker", *rate])
    text = [
        f"{found['config_file']}: {found['pictures']}",
        markdown(rows, ["milliseconds of CPU time", *sides]),
    ]
    if found["ratio"]:
        ratio = found["ratio"]
        spread = f"{ratio['min']:.2f} to {ratio['max']:.2f}"
        text.append(f"mmsegmentation / ours: {ratio['median']:.2f} ({spread})")
    else:
        text.append(found["left_out"])
    hardware = found["hardware"]
    text.append(f"{hardware['cpu']}; plain PNG files by {found['png_decoder']}")
    return "\n".join(text)
