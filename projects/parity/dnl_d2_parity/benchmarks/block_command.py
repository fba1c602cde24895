"""Times context blocks beside the public ones (mmcv, mmsegmentation) with the same weights.

For each block, pass and size: both run in turns in one process; the peak memory of each, beyond
its weights and input, comes from one run in a process of its own. A reference that needs more
memory than --memory-limit is left out ("-"). --compile runs both through torch.compile, whose
compilation is not timed. Prints a table and writes benchmark_blocks.json, with
every run, and where there are several sizes benchmark_blocks.png: time and memory over the number
of positions L, with fitted exponents. Needs requirements/parity.txt, which `make test` installs.

Examples:
    tools/benchmark_blocks.py --preset bars --output output/bars
    tools/benchmark_blocks.py --blocks nl dnl --sizes 32x64 64x64 64x128 --passes forward training
    tools/benchmark_blocks.py --blocks dnl --passes training --device cuda --dtype bfloat16
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

import torch

from dnl_d2.errors import UsageError
from dnl_d2.files import write_text
from dnl_d2.layers.common import check_count, check_positive
from dnl_d2.layers.functional import check_backend
from dnl_d2_parity.benchmarks import block_runs, measuring, processes
from dnl_d2_parity.benchmarks.block_cases import PASSES, PRESETS, Case, Settings, cases, known
from dnl_d2_parity.benchmarks.block_pairs import PAIRS
from dnl_d2_parity.benchmarks.block_report import (
    growth,
    growth_table,
    plot_growth,
    remarks,
    table,
)

NAME = "benchmark_blocks"


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
    add("--compile", action="store_true", help="both through torch.compile")
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
        preset, lines = PRESETS[known(args.preset, PRESETS, "--preset")]
    names = ("device", "dtype", "backend", "compile", *names)
    asked = {name: getattr(args, name) for name in names}
    settings = Settings(**preset | {k: v for k, v in asked.items() if v is not None})
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: there is no CUDA device here")
    return list(cases(lines)), settings


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    asked, settings = check(args)
    try:
        os.makedirs(args.output, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {args.output}: {error.strerror}") from error
    limit = args.memory_limit and args.memory_limit * block_runs.GIB
    processes.preload(block_runs.__name__)
    report = {"settings": asdict(settings), "results": [], "growth": []}
    path, interrupted = os.path.join(args.output, NAME), False
    try:
        for number, case in enumerate(asked, start=1):
            print(f"[{number}/{len(asked)}] {case}", file=sys.stderr, flush=True)
            report["results"].append(block_runs.measure(case, settings, limit))
            report["growth"] = growth(report["results"])
            write_text(f"{path}.json", json.dumps(report, indent=1))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; what has been measured:", file=sys.stderr)
    print(table(report["results"]))
    if report["growth"]:
        plot_growth(f"{path}.png", report["growth"])
        print("", growth_table(report["growth"]), sep="\n")
    print("", *remarks(report), sep="\n")
    return 130 if interrupted else int(any(r["failed"] for r in report["results"]))
