"""Runs a config's model and its reference in turns, each in a process of its own."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from dnl_d2.errors import UsageError
from dnl_d2_parity.benchmarks import measuring, processes
from dnl_d2_parity.benchmarks.model_sides import prepare
from dnl_d2_parity.differences import relative
from dnl_d2_parity.tables import markdown

# Passes after the first, which the timed ones follow: a GPU has other kernels with TF32.
_WARM_UP = {"cpu": 0, "cuda": 2}


def passes(side: str, args: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    """Builds one side; a call is one pass: its figures and, the first time, its output."""
    if args.threads:
        torch.set_num_threads(args.threads)
    run = prepare(side, args)
    memory, output = measuring.PeakMemory(args.device), None

    def measured() -> dict[str, Any]:
        nonlocal output
        half = torch.autocast(args.device, torch.bfloat16, enabled=args.autocast)
        exact = measuring.without_tf32(output is None and not args.autocast)
        with half, exact:  # what is compared is exact, what is timed as PyTorch has it
            seconds, result = measuring.timed(run, args.device)
        answer = {"seconds": seconds, "mib": memory.mib()}
        if output is None:  # as an array: a tensor would go through shared memory
            answer["output"] = output = result.float().cpu().numpy()
            answer["hardware"] = measuring.hardware(args.device, torch.get_num_threads())
        return answer

    return measured


@contextlib.contextmanager
def process(side: str, args: argparse.Namespace) -> Iterator[Callable[[], dict[str, Any]]]:
    """A function that asks a process, in which the side is built, for one pass."""
    with processes.own_process(passes, side, args) as ask:

        def run() -> dict[str, Any]:
            try:
                return ask()
            except processes.Failed as error:
                if error.status is not None:
                    raise UsageError(
                        f"the process of {side} ended with status {error.status}: out of memory? "
                        "Try a smaller --size or --batch"
                    ) from None
                mistake = error.details.rstrip().splitlines()[-1].partition("UsageError: ")[2]
                if not mistake:
                    print(error.details, file=sys.stderr)
                raise UsageError(mistake or f"{side}: see the traceback above") from None

        yield run


def measure(args: argparse.Namespace) -> dict:
    """Runs both sides in turns and returns every figure."""
    with process("ours", args) as ours, process("reference", args) as reference:
        runs = {"ours": ours, "reference": reference}
        first = {side: run() for side, run in runs.items()}  # this also warms up
        measuring.in_turns(runs, _WARM_UP[args.device])
        answers = measuring.in_turns(runs, args.runs)
    seconds = {side: [a["seconds"] for a in found] for side, found in answers.items()}
    memory = {side: found[-1]["mib"] for side, found in answers.items()}
    pairs = zip(seconds["reference"], seconds["ours"], strict=True)
    outputs = [torch.from_numpy(first[side]["output"]) for side in runs]
    return {
        **{k: v for k, v in vars(args).items() if k != "output"},
        "hardware": first["ours"]["hardware"],
        "difference": relative(*outputs),
        "equal_labels": None if args.training else _equal_labels(*outputs),
        "seconds": {side: measuring.summary(values) for side, values in seconds.items()},
        "extra_mib": memory,
        "ratio": {
            "seconds": measuring.summary([theirs / mine for theirs, mine in pairs]),
            "extra_mib": memory["reference"] / memory["ours"] if memory["ours"] else None,
        },
    }


def _equal_labels(logits: torch.Tensor, others: torch.Tensor) -> float:
    """The share of pixels with the same class."""
    return (logits.argmax(0) == others.argmax(0)).float().mean().item()


def report(found: dict) -> str:
    """The table and what it holds for."""
    kind = ", optimised" if found["optimize"] else ", tuned" if found["tuned"] else ""
    title = {"ours": f"ours{kind}"}
    if found["precision"] != "float32":
        title["ours"] += f", {found['precision']}"
    title["reference"] = found["reference"]

    def row(name: str, seconds: dict, mib: float | None, digits: int) -> list[str]:
        times = [f"{seconds[key]:.{digits}f}" for key in ("min", "median", "max")]
        return [name, *times, "unknown" if mib is None else f"{mib:.{2 if digits == 2 else 0}f}"]

    rows = [row(title[s], found["seconds"][s], found["extra_mib"][s], 3) for s in title]
    ratio = found["ratio"]
    rows.append(row(f"{found['reference']} / ours", ratio["seconds"], ratio["extra_mib"], 2))
    headers = ["", "min s", "median s", "max s", "extra MiB"]
    what = f"training step of {found['batch']}" if found["training"] else "inference of 1"
    same = found["equal_labels"]
    hardware = found["hardware"]
    processor = hardware["gpu"] or f"{hardware['cpu']}, {hardware['instructions']}"
    return "\n".join(
        [
            f"{found['config_file']}: {what} at {found['size'][0]}x{found['size'][1]}"
            f"{', bfloat16 autocast' if found['autocast'] else ''}, {found['runs']} runs each",
            markdown(rows, headers),
            f"relative difference of the {'loss' if found['training'] else 'logits'}: "
            f"{found['difference']:.1e}"
            + ("" if same is None else f"; equal labels: {100 * same:.2f} %"),
            f"{processor}; {measuring.machine(hardware)}",
        ]
    )
