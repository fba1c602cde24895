"""The bars of a GPU: what is measured beside the public code, and the ratios to reach."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dnl_d2_parity.benchmarks import gpu_runs
from dnl_d2_parity.benchmarks.block_cases import PASSES, Settings, cases

BLOCKS = ("nl", "dnl", "gc", "apnb")
PARTS = (*BLOCKS, "compiled", "step")

_SIZES = ("64x128", "97x97", "128x256")
_SMALL = ("8x9",)
_SOFTMAX = ("nl", "dnl")
# Dtype -> lines as in block_cases.PRESETS: blocks, passes, sizes, time bar, memory bar.
_BLOCK_LINES = {
    "float32": [
        ((*_SOFTMAX, "gc"), PASSES, _SIZES, 1, None),
        (("apnb",), PASSES, _SIZES, 1.2, None),
    ],
    "bfloat16": [
        (_SOFTMAX, ("forward",), _SIZES, 1, None),
        (_SOFTMAX, ("training",), ("64x128",), 2, None),
        (_SOFTMAX, ("training",), ("97x97",), 1, None),
        (("nl",), ("training",), ("128x256",), 4, 20),
        (("dnl",), ("training",), ("128x256",), 5, 20),
        (("gc",), PASSES, _SIZES, 1, None),
        (("apnb",), PASSES, _SIZES, 1.2, None),
    ],
}
_COMPILED_LINES = [(("dnl",), ("forward",), ("64x128",), 1, None)]
# Tuned or not -> time bar. The public model is never tuned.
_STEPS = {False: 1.3, True: 2}


@dataclass(frozen=True)
class GpuCase:
    """A line of the table.

    Args:
        part: of :data:`PARTS`.
        name: for people.
        measure: returns the figures as :func:`gpu_runs.block` does.
        time_bar, memory_bar: smallest ratios public / ours to reach.
    """

    part: str
    name: str
    measure: Callable[[], dict[str, Any]]
    time_bar: float | None = None
    memory_bar: float | None = None


def gpu_cases(settings: Settings, quick: bool) -> Iterator[GpuCase]:
    """All cases, blocks first; on small maps and without bars if ``quick``."""
    yield from _blocks(settings, quick)
    size = (33, 65) if quick else (512, 1024)
    for tuned, bar in _STEPS.items():
        way = "tuned" if tuned else "eager"
        name = f"DNL R-50-D8 training step, 2 x {size[0]}x{size[1]}, bfloat16, ours {way}"
        measure = partial(gpu_runs.step, tuned, size, settings)
        yield GpuCase("step", name, measure, None if quick else bar)


def _blocks(settings: Settings, quick: bool) -> Iterator[GpuCase]:
    lines = [(dtype, False, line) for dtype, found in _BLOCK_LINES.items() for line in found]
    lines += [("bfloat16", True, line) for line in _COMPILED_LINES]
    if quick:
        lines = [(dtype, False, (BLOCKS, PASSES, _SMALL)) for dtype in _BLOCK_LINES]
        lines += [("bfloat16", True, (("dnl",), ("forward",), _SMALL))]
    for dtype, compiled, line in lines:
        chosen = replace(settings, dtype=dtype, compile=compiled)
        for case in cases([line]):
            part = "compiled" if compiled else case.block
            name = f"{case}, {dtype}{', both compiled' if compiled else ''}"
            bars = case.time_bar, case.memory_bar
            yield GpuCase(part, name, partial(gpu_runs.block, case, chosen), *bars)
