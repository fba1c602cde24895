"""Measures one case of a benchmark of blocks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dnl_d2_parity.benchmarks import measuring, processes
from dnl_d2_parity.benchmarks.block_cases import SIDES, Case, Settings
from dnl_d2_parity.benchmarks.block_costs import MAPS, PRODUCTS
from dnl_d2_parity.benchmarks.block_pairs import PAIRS, build
from dnl_d2_parity.benchmarks.launches import count_launches
from dnl_d2_parity.differences import relative

GIB = 2**30
# Width of the square matrices whose product shows what the device can do.
PRODUCT = {"cpu": 1024, "cuda": 8192}
# Largest relative difference in float32 (on GPUs convolutions round to TF32).
SAME = {"cpu": 1e-3, "cuda": 1e-2}


# ---- in processes of their own


def ready(
    block: str, side: str, training: bool, size: Sequence[int], settings: Settings
) -> Callable[[], tuple[Tensor, ...]]:
    """Builds a side and its input x; a call is one pass: the output and, in training, dx."""
    module = build(block, side, settings).to(settings.device).train(training)
    if settings.compile:
        module.compile()
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
    run = ready(case.block, side, case.training, (case.height, case.width), settings)
    # What libraries keep from their first call is not counted, and no compilation.
    if settings.compile:
        run()
    else:
        _small(case, side, settings)()
    memory = measuring.PeakMemory(settings.device)
    result = run()
    mib = memory.mib()
    del result
    return mib


def _small(case: Case, side: str, settings: Settings) -> Callable[[], tuple[Tensor, ...]]:
    """A small map, but for ours with more positions than channels, as large ones are computed."""
    most = 8 if side == "reference" else math.isqrt(2 * settings.channels) + 1
    size = min(case.height, most), min(case.width, most)
    return ready(case.block, side, case.training, size, settings)


def times(case: Case, sides: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Seconds of each side, of our dot product (for concatenation) and of a matrix product.

    And the kernels that each side launches, forward and backward.
    """
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
    difference = max(map(relative, first["ours"], first["reference"])) if both else None
    del first
    return {
        "seconds": measuring.seconds_in_turns(runs, settings.runs, settings.device),
        "difference": difference,
        "launches": _launches(case.block, sides, settings),
        "hardware": measuring.hardware(settings.device, torch.get_num_threads()),
    }


def _launches(block: str, sides: Sequence[str], settings: Settings) -> dict[str, tuple[int, int]]:
    """What :func:`count_launches` finds; nothing of compiled blocks, whose kernels are fused."""
    if settings.compile:
        return {}
    half = settings.dtype == "bfloat16"
    counted = [side for side in sides if side == "ours" or not PAIRS[block].untrainable]
    count = partial(count_launches, settings=settings, autocast=half, dtype=torch.float32)
    return {side: count(block, side) for side in counted}


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
    found |= {"extra_mib": {}, "seconds": {}, "launches": {}, "difference": None}
    found |= {"notes": {}, "failed": []}

    def fail(side: str, why: object) -> None:
        found["failed"].append(side)
        found["notes"][side] = str(why)

    refusal = _refusal(case, settings, limit)
    if refusal:
        found["notes"]["reference"] = refusal
    for side in SIDES[:1] if refusal else SIDES:
        try:
            mib = processes.in_own_process(peak_memory, case, side, settings)
            found["extra_mib"][side] = mib
        except processes.Failed as error:
            fail(side, error)
    sides = list(found["extra_mib"])
    while sides and not found["seconds"]:
        try:
            found |= processes.in_own_process(times, case, sides, settings)
        except processes.Failed as error:
            fail(sides.pop(), error)  # the reference is the likelier cause
    if settings.dtype == "float32" and (found["difference"] or 0) > SAME[settings.device]:
        fail("ours", f"differs from the reference by {found['difference']:.1e}")
    return found | _derived(found, settings)


def _refusal(case: Case, settings: Settings, limit: float | None) -> str:
    """Why the reference is not run; empty if it is."""
    untrainable, length = PAIRS[case.block].untrainable, case.height * case.width
    if case.training and untrainable:
        return f"not run: {untrainable}"
    maps = MAPS[case.block](settings.inter_channels, case.training)
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
        count = PRODUCTS[found["block"]]
        products = count(settings.channels, settings.inter_channels, found["positions"])
        rates["ours"] = 2e-9 * products * settings.batch / seconds["ours"]
    return {"ratio": ratio, "gflops": rates}


def _ratio(values: dict[str, float | None]) -> float | None:
    ours, theirs = (values.get(side) for side in SIDES)
    return theirs / ours if ours and theirs else None
