"""Checks on a CUDA GPU that blocks and a training step are as fast as the public ones, or faster.

For each case outputs and gradients of both sides are compared in float32 without TF32; then both
run in turns, timed by CUDA events, after a warm-up. TF32 is off throughout. Blocks take a map of
512 channels in float32, and in the bfloat16 cases run under autocast. Prints a table with the
ratios public / ours of the median times and of the peak memory, and the bars these are to reach.
The exit status is 0 only if every bar is met; what was not measured is not met. Takes some minutes.
Needs requirements/parity.txt.

Examples:
    tools/benchmark_gpu.py --output output/gpu.json
    tools/benchmark_gpu.py --parts apnb step --budget 200
    tools/benchmark_gpu.py --device cpu --quick
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dnl_d2.errors import UsageError
from dnl_d2.files import check_folder, write_text
from dnl_d2.layers.common import check_count, check_positive
from dnl_d2_parity.benchmarks import block_runs, gpu_runs, measuring, model_runs, processes
from dnl_d2_parity.benchmarks.block_cases import Settings, known
from dnl_d2_parity.benchmarks.gpu_cases import PARTS, GpuCase, gpu_cases
from dnl_d2_parity.benchmarks.gpu_report import report, result

_QUICK = {"channels": 16, "inter_channels": 8}
_RUNS, _QUICK_RUNS = 21, 3  # the public step takes seconds in bfloat16 on a CPU


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    add("--budget", type=float, default=400, metavar="SECONDS", help="start no case after these")
    runs = f"timed runs of each side (default {_RUNS}, with --quick {_QUICK_RUNS})"
    add("--runs", type=int, help=runs)
    add("--device", choices=("cuda", "cpu"), default="cuda", help="default cuda")
    add("--quick", action="store_true", help="small maps and no bars, to try the script anywhere")
    add("--output", metavar="FILE.json", help="also write the figures there, after every case")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> list[GpuCase]:
    """The cases that the command line asks for.

    Raises:
        UsageError: something unknown, out of range, or there is no GPU.
    """
    if args.runs is None:
        args.runs = _QUICK_RUNS if args.quick else _RUNS
    check_count(**{"--runs": args.runs})
    check_positive(**{"--budget": args.budget})
    parts = [known(part, PARTS, "--parts") for part in args.parts or PARTS]
    if args.output:
        check_folder(args.output)
    if args.device == "cpu" and not args.quick:
        raise UsageError("--device cpu: the bars are those of a GPU; --quick tries the script")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "there is no CUDA device here, which the bars are for; --device cpu --quick tries the "
            "script"
        )
    reported = {"device": args.device, "runs": args.runs, "threads": torch.get_num_threads()}
    settings = Settings(**reported, **_QUICK if args.quick else {})
    return [case for case in gpu_cases(settings, args.quick) if case.part in parts]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    asked = check(args)
    processes.preload(block_runs.__name__, model_runs.__name__)
    hardware = measuring.hardware(args.device, torch.get_num_threads())
    found = {"settings": vars(args), "hardware": hardware, "results": [], "seconds": 0.0}
    interrupted = False
    try:
        with measuring.without_tf32(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for found["results"], found["seconds"] in _results(asked, args.budget):
                if args.output:
                    write_text(args.output, json.dumps(found, indent=1))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted; what has been measured:", file=sys.stderr)
        rest = asked[len(found["results"]) :]
        found["results"] += [result(case, {"note": "interrupted"}) for case in rest]
    print(report(found))
    return 130 if interrupted else int(not all(r["met"] for r in found["results"]))


def _results(
    asked: Sequence[GpuCase], budget: float
) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """After each case all results so far, and the seconds since the start."""
    start, results = time.monotonic(), []
    for number, case in enumerate(asked, start=1):
        elapsed = time.monotonic() - start
        print(f"[{number}/{len(asked)}, {elapsed:.0f} s] {case.name}", file=sys.stderr, flush=True)
        figures = {"note": "--budget is spent"} if elapsed >= budget else _measured(case)
        results.append(result(case, figures))
        yield results, time.monotonic() - start


def _measured(case: GpuCase) -> dict[str, Any]:
    """The figures of a case, or a ``note`` that says why there are none."""
    try:
        return case.measure()
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    except gpu_runs.Differs as error:
        return {"note": str(error)}
    except Exception as error:  # whatever a compiler or a driver raises: the other cases may run
        return {"note": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    finally:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
