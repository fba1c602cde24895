#!/usr/bin/env python
"""Times context blocks beside the public ones (mmcv, mmsegmentation) with the same weights.

For each block, pass and size: both run in turns in one process; the peak memory of each, beyond
its weights and input, comes from one run in a process of its own. A reference that needs more
memory than --memory-limit is left out ("-"). Prints a table and writes benchmark_blocks.json, with
every run, and where there are several sizes benchmark_blocks.png: time and memory over the number
of positions L, with fitted exponents. Needs requirements/parity.txt, which `make test` installs.

Examples:
    tools/benchmark_blocks.py --preset bars --output output/bars
    tools/benchmark_blocks.py --blocks nl dnl --sizes 32x64 64x64 64x128 --passes forward training
    tools/benchmark_blocks.py --preset bars-cuda
"""

import argparse
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnl_d2.errors import UsageError, one_line
from dnl_d2.files import write_text
from dnl_d2.layers.common import check_count, check_positive
from dnl_d2.layers.functional import check_backend

# The reference models are part of the tests.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
try:
    import measuring
    from block_pairs import PAIRS, Widths, build
    from block_report import PASSES, SIDES, growth, growth_table, remarks, table
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"benchmark_blocks.py needs {missing.name}: "
        "pip install --no-deps -r requirements/parity.txt"
    ) from missing

NAME = "benchmark_blocks"
GIB = 2**30
# Width of the square matrices whose product shows what the device can do.
PRODUCT = {"cpu": 1024, "cuda": 8192}
# Largest relative difference in float32 (on GPUs convolutions round to TF32).
SAME = {"cpu": 1e-3, "cuda": 1e-2}


@dataclass(frozen=True)
class Settings:
    """What all cases of one call share."""

    device: str = "cpu"
    dtype: str = "float32"
    channels: int = 512
    inter_channels: int = 256
    batch: int = 1
    runs: int = 5
    threads: int = field(default_factory=measuring.cores)
    backend: str = "auto"

    @property
    def widths(self) -> Widths:
        return Widths(self.channels, self.inter_channels, self.backend)


@dataclass(frozen=True)
class Case:
    """A line of the table; the bars are the smallest ratios reference / ours to reach."""

    block: str
    phase: str
    height: int
    width: int
    time_bar: float | None = None
    memory_bar: float | None = None

    @property
    def size(self) -> str:
        return f"{self.height}x{self.width}"

    @property
    def training(self) -> bool:
        return self.phase == "training"

    def __str__(self) -> str:
        return f"{self.block} {self.phase} {self.size}"


# ---- in processes of their own


def ready(
    block: str, side: str, training: bool, size: Sequence[int], settings: Settings
) -> Callable[[], tuple[Tensor, ...]]:
    """Builds a side and its input x; a call is one pass: the output and, in training, dx."""
    module = build(block, side, settings.widths).to(settings.device).train(training)
    generator = torch.Generator().manual_seed(0)
    shape = (settings.batch, settings.channels, *size)
    x, upstream = (torch.randn(shape, generator=generator) for _ in range(2))
    if block == "gaussian":  # else x_i.x_i takes all of the softmax
        x *= (8 / settings.channels) ** 0.5
    x = x.to(settings.device).requires_grad_(training)
    upstream = upstream.to(settings.device) if training else None
    half = torch.autocast(settings.device, torch.bfloat16, enabled=settings.dtype == "bfloat16")

    def run() -> tuple[Tensor, ...]:
        module.zero_grad()
        x.grad = None
        with torch.set_grad_enabled(training), half:
            out = module(x)
        if not training:
            return (out,)
        out.backward(upstream.to(out.dtype))
        return out.detach(), x.grad

    return run


def peak_memory(case: Case, side: str, settings: Settings) -> float | None:
    """MiB of one pass beyond weights and input."""
    torch.set_num_threads(settings.threads)
    # What libraries keep from their first call is not counted: a small map, but for ours one with
    # more positions than channels, which is computed in the way of large ones.
    most = 8 if side == "reference" else math.isqrt(2 * settings.channels) + 1
    small = min(case.height, most), min(case.width, most)
    ready(case.block, side, case.training, small, settings)()
    run = ready(case.block, side, case.training, (case.height, case.width), settings)
    memory = measuring.PeakMemory(settings.device)
    result = run()
    mib = memory.mib()
    del result
    return mib


def times(case: Case, sides: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Seconds of each side, of our dot product (for concatenation) and of a matrix product."""
    torch.set_num_threads(settings.threads)
    blocks = {side: (case.block, side) for side in sides}
    if case.block == "concatenation":
        blocks["dot"] = ("dot", "ours")
    size = case.height, case.width
    runs = {name: ready(*b, case.training, size, settings) for name, b in blocks.items()}
    width = PRODUCT[settings.device]
    matrix = torch.randn(width, width, dtype=getattr(torch, settings.dtype)).to(settings.device)
    runs["product"] = partial(torch.matmul, matrix, matrix)
    first = {name: run() for name, run in runs.items()}  # this also warms up
    both = all(side in first for side in SIDES)
    difference = max(map(_relative, first["ours"], first["reference"])) if both else None
    del first
    found = measuring.in_turns(runs, settings.runs, settings.device)
    return {
        "seconds": {name: measuring.summary(values) for name, values in found.items()},
        "difference": difference,
        "hardware": measuring.hardware(settings.device, torch.get_num_threads()),
    }


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|; infinite where that is no number."""
    found = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    return math.inf if math.isnan(found) else found


# ---- one case


def measure(case: Case, settings: Settings, limit: float | None) -> dict[str, Any]:
    """All figures of one case.

    Args:
        case: what to measure.
        settings: how.
        limit: bytes that the reference may need; default 70 % of what is available.

    Returns:
        The figures; ``notes`` says why a side has none, ``failed`` lists sides where that is wrong.
    """
    found = {**asdict(case), "size": case.size, "positions": case.height * case.width}
    found |= {"extra_mib": {}, "seconds": {}, "difference": None, "notes": {}, "failed": []}

    def fail(side: str, why: object) -> None:
        found["failed"].append(side)
        found["notes"][side] = str(why)

    refusal = _refusal(case, settings, limit)
    if refusal:
        found["notes"]["reference"] = refusal
    for side in SIDES[:1] if refusal else SIDES:
        try:
            mib = measuring.in_own_process(peak_memory, case, side, settings)
            found["extra_mib"][side] = mib
        except measuring.Failed as error:
            fail(side, error)
    sides = list(found["extra_mib"])
    while sides and not found["seconds"]:
        try:
            found |= measuring.in_own_process(times, case, sides, settings)
        except measuring.Failed as error:
            fail(sides.pop(), error)  # the reference is the likelier cause
    if settings.dtype == "float32" and (found["difference"] or 0) > SAME[settings.device]:
        fail("ours", f"differs from the reference by {found['difference']:.1e}")
    return found | _derived(found, settings)


def _refusal(case: Case, settings: Settings, limit: float | None) -> str:
    """Why the reference is not run; empty if it is."""
    pair, length = PAIRS[case.block], case.height * case.width
    if case.training and pair.untrainable:
        return f"not run: {pair.untrainable}"
    maps = pair.maps(settings.inter_channels, case.training)
    need = 4 * maps * length**2 * settings.batch
    if limit is None:
        available = measuring.available_memory(settings.device)
        limit = math.inf if available is None else 0.7 * available
    if need <= limit:
        return ""
    return f"not run: needs about {need / GIB:,.2f} GiB, may have {limit / GIB:,.2f}"


def _derived(found: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Ratios of medians, and GFLOP/s (two operations a multiply-add)."""
    seconds = {name: s["median"] for name, s in found["seconds"].items()}
    ratio = {"seconds": _ratio(seconds), "extra_mib": _ratio(found["extra_mib"])}
    rates = {}
    if "product" in seconds:
        rates["product"] = 2e-9 * PRODUCT[settings.device] ** 3 / seconds["product"]
    if "ours" in seconds and "dot" in seconds:
        ratio["ours_to_dot"] = seconds["ours"] / seconds["dot"]
    if "ours" in seconds and found["phase"] == "forward":
        count = PAIRS[found["block"]].products
        products = count(settings.channels, settings.inter_channels, found["positions"])
        rates["ours"] = 2e-9 * products * settings.batch / seconds["ours"]
    return {"ratio": ratio, "gflops": rates}


def _ratio(values: dict[str, float | None]) -> float | None:
    ours, theirs = (values.get(side) for side in SIDES)
    return theirs / ours if ours and theirs else None


# ---- the command line

_SOFTMAX = ("nl", "dnl")
# Name -> settings, and lines (blocks, passes, sizes, time bar, memory bar).
PRESETS = {
    "bars": (
        {},
        [
            (_SOFTMAX, ("forward",), ("64x128",), 1.5, 6),
            (_SOFTMAX, ("training",), ("64x128", "97x97"), 1.3, 4),
            (_SOFTMAX, ("forward",), ("128x256",), 1.3, 28),
            (("dot",), ("forward",), ("64x128",), 5, 6),
            (("dot",), ("forward",), ("128x256",), 15, 20),
            (("concatenation",), ("forward",), ("32x32",), 50, 50),
            (("concatenation",), ("forward",), ("128x256",), None, None),
            (("apnb",), PASSES, ("64x128", "128x256"), 1.2, 1.2),
        ],
    ),
    "bars-cuda": (
        {"device": "cuda", "dtype": "bfloat16"},
        [(("dnl",), ("training",), ("128x256",), 5, 20)],
    ),
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", metavar="NAME", help=f"cases with bars to reach: {', '.join(PRESETS)}")
    add("--blocks", nargs="+", metavar="BLOCK", help=f"default {' '.join(PAIRS)}")
    add("--sizes", nargs="+", metavar="HxW", help="default 64x128")
    add("--passes", nargs="+", metavar="PASS", help=f"of {', '.join(PASSES)}; default forward")
    add("--device", choices=("cpu", "cuda"), help="default cpu")
    add("--dtype", choices=("float32", "bfloat16"), help="default float32; bfloat16 is autocast")
    add("--channels", type=int, default=512, help="C (default 512)")
    add("--inter-channels", type=int, default=256, help="C' (default 256)")
    add("--batch", type=int, default=1, help="default 1")
    add("--runs", type=int, default=5, help="timed runs of each (default 5)")
    add("--threads", type=int, default=measuring.cores(), help="of the CPU (default: all cores)")
    add("--backend", default="auto", help="attention_backend of nl, gaussian and dnl")
    add("--memory-limit", type=float, metavar="GIB", help="default: 70%% of what is available")
    add("--output", default=f"output/{NAME}", metavar="DIR", help=f"default output/{NAME}")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> tuple[list[Case], Settings]:
    """What the command line asks for.

    Raises:
        UsageError: something unknown, or out of range.
    """
    names = ("channels", "inter_channels", "batch", "runs", "threads")
    check_count(**{f"--{n.replace('_', '-')}": getattr(args, n) for n in names})
    if args.memory_limit is not None:
        check_positive(**{"--memory-limit": args.memory_limit})
    check_backend(args.backend)
    if args.channels % args.inter_channels:
        raise UsageError(
            f"--inter-channels {args.inter_channels} does not divide --channels {args.channels}, "
            "which the reference blocks need"
        )
    preset, lines = {}, [(args.blocks or PAIRS, args.passes, args.sizes, None, None)]
    if args.preset is not None:
        if args.blocks or args.passes or args.sizes:
            raise UsageError("--preset has its own --blocks, --passes and --sizes: leave them out")
        preset, lines = PRESETS[_known(args.preset, PRESETS, "--preset")]
    asked = {name: getattr(args, name) for name in ("device", "dtype", "backend", *names)}
    settings = Settings(**preset | {k: v for k, v in asked.items() if v is not None})
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here, which --device cuda and bars-cuda need")
    return list(_cases(lines)), settings


def _cases(lines: Sequence[tuple]) -> Iterator[Case]:
    for blocks, passes, sizes, *bars in lines:
        for block, phase, size in itertools.product(
            blocks, passes or ("forward",), sizes or ("64x128",)
        ):
            _known(block, PAIRS, "--blocks")
            _known(phase, PASSES, "--passes")
            yield Case(block, phase, *_size(size), *bars)


def _known(name: str, names: Collection[str], option: str) -> str:
    if name not in names:
        raise UsageError(f"{option}: unknown {name!r}; use one of {', '.join(names)}")
    return name


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UsageError(f"--sizes: {text!r} is no size; write it as HxW, such as 64x128")
    return int(found[1]), int(found[2])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cases, settings = check(args)
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {args.output}: {error.strerror}") from error
    limit = args.memory_limit and args.memory_limit * GIB
    measuring.preload("block_pairs")
    report = {"settings": asdict(settings), "results": [], "growth": []}
    path, interrupted = os.path.join(args.output, NAME), False
    try:
        for number, case in enumerate(cases, start=1):
            print(f"[{number}/{len(cases)}] {case}", file=sys.stderr, flush=True)
            report["results"].append(measure(case, settings, limit))
            report["growth"] = growth(report["results"])
            write_text(f"{path}.json", json.dumps(report, indent=1))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; what has been measured:", file=sys.stderr)
    print(table(report["results"]))
    if report["growth"]:
        measuring.plot_growth(f"{path}.png", report["growth"])
        print("", growth_table(report["growth"]), sep="\n")
    print("", *remarks(report), sep="\n")
    return 130 if interrupted else int(any(r["failed"] for r in report["results"]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as error:
        sys.exit(f"{NAME}.py: error: {one_line(error)}")
