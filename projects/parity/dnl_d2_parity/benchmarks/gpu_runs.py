"""Measures a block or a training step beside the public one on a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dnl_d2_parity.benchmarks import block_runs, measuring, model_command, model_runs
from dnl_d2_parity.benchmarks.block_cases import SIDES, Case, Settings
from dnl_d2_parity.differences import relative

# Largest relative difference of what both sides compute: in float32 without TF32; and of losses
# under autocast, which tells only that no side went astray.
SAME, SAME_LOSS = 1e-3, 1e-1
_WARM_UP = 3
_CONFIG = Path(__file__).parents[4] / "configs/cityscapes/dnl_r50-d8_40k_cityscapes-512x1024.yaml"


class Differs(Exception):
    """Both sides computed different things: their time says nothing."""


def block(case: Case, settings: Settings) -> dict[str, Any]:
    """Compares the results of a block and the public one in float32, then their cost.

    Both are in this process; their memory is that of PyTorch's allocator, beyond what it held.

    Returns:
        ``seconds`` (a summary for each side), ``extra_mib`` and ``difference``.

    Raises:
        Differs: outputs or gradients do.
    """
    exact = [run() for run in _sides(case, replace(settings, dtype="float32")).values()]
    difference = _checked(max(map(relative, *exact)), SAME)
    del exact
    memory = {side: block_runs.peak_memory(case, side, settings) for side in SIDES}
    runs = _sides(case, settings)
    measuring.in_turns(runs, _WARM_UP)
    seconds = measuring.seconds_in_turns(runs, settings.runs, settings.device)
    return {"seconds": seconds, "extra_mib": memory, "difference": difference}


def _sides(case: Case, settings: Settings) -> dict[str, Callable[[], tuple[torch.Tensor, ...]]]:
    """Both sides, built; a call is one pass."""
    size = case.height, case.width
    return {s: block_runs.ready(case.block, s, case.training, size, settings) for s in SIDES}


def _checked(difference: float, limit: float) -> float:
    if not difference <= limit:
        raise Differs(f"the results differ by {difference:.1e}, more than {limit:g}")
    return difference


def step(tuned: bool, size: Sequence[int], settings: Settings) -> dict[str, Any]:
    """Compares the loss of DNL R-50-D8 and of the public model, then a step's cost in bfloat16.

    Each side is in its own process, because cuDNN remembers its choice of kernels for the next
    model. No dropout, whose draws are others in a compiled model.

    Args:
        tuned: whether ours is trained as ``--tuned`` of benchmark_model.py does. Its loss is then
            compared in bfloat16 only, else in float32 too.
        size: of the two pictures.
        settings: device, runs and threads.

    Returns:
        As :func:`block` does.

    Raises:
        Differs: the losses do.
        UsageError: a process ended, for want of memory.
    """
    difference = None
    if not tuned:
        difference = _checked(_steps(size, replace(settings, runs=1))["difference"], SAME)
    found = _steps(size, settings, "--autocast", *["--tuned"] * tuned)
    _checked(found["difference"], SAME_LOSS)
    figures = {key: found[key] for key in ("seconds", "extra_mib")}
    return figures | {"difference": found["difference"] if difference is None else difference}


def _steps(size: Sequence[int], settings: Settings, *options: str) -> dict[str, Any]:
    """What benchmark_model.py measures with these options."""
    words = ["--config-file", str(_CONFIG), "--training", "--size", *map(str, size), *options]
    for name in ("device", "runs", "threads"):
        words += [f"--{name}", str(getattr(settings, name))]
    args = model_command.parse_args([*words, "--", "MODEL.SEM_SEG_HEAD.DROPOUT", "0.0"])
    model_command.check(args)
    return model_runs.measure(args)
