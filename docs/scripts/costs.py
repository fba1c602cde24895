#!/usr/bin/env python
"""Counts and times the blocks, and counts models, for the tables of the documents: ``costs.yaml``.

Times are those that the processor spent on one thread, so that other work on the machine counts as
little as possible; the fastest of ``--runs``. ``tools/make_tables.py`` writes the tables.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "projects/parity")]

from dnl_d2.analysis import OperationCounter, analyze  # noqa: E402
from dnl_d2.files import write_text  # noqa: E402
from dnl_d2.layers import ContextBlock, build_context_block  # noqa: E402
from dnl_d2.modeling.from_config import build_from_config  # noqa: E402
from dnl_d2_parity.benchmarks.measuring import hardware  # noqa: E402

# Place -> (channels, (height, width)): the head of R-50-D8 at 512x1024; AFNB of its res5 and res4;
# and one insert in res4 of a detector at 800x1280.
PLACES = {
    "head": (512, (64, 128)),
    "fusion": (2048, (64, 128)),
    "res4": (1024, (50, 80)),
}
BLOCKS = [
    ("nl", "head", {"norm": "BN"}),
    ("nl", "res4", {}),
    ("snl", "head", {}),
    ("snl", "res4", {}),
    ("gc", "head", {"ratio": 1 / 4}),
    ("gc", "res4", {"ratio": 1 / 16}),
    ("dnl", "head", {"norm": "BN"}),
    ("dnl", "res4", {"preset": "paper-det"}),
    ("apnb", "head", {"inter_channels": 256}),
    ("afnb", "fusion", {"low_channels": 1024, "inter_channels": 256}),
]
MODELS = [
    *(f"cityscapes/{m}_r50-d8_40k_cityscapes-512x1024" for m in ("fcn", "gc", "ann", "nl", "dnl")),
    "cityscapes/dnl_r101-d8_80k_cityscapes-512x1024",
]


def main() -> None:
    """Writes the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="timed runs of each block")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = hardware("cpu", 1)
    content = {
        "hardware": f"processor time of one thread, {found['cpu']} ({found['instructions']}), a "
        f"machine shared with other work; fp32, PyTorch {found['torch'].partition('+')[0]}; "
        f"fastest of {args.runs} runs",
        "blocks": [count_block(*row) | time_block(*row, runs=args.runs) for row in BLOCKS],
        "models": [count_model(name) for name in MODELS],
    }
    text = "# Written by costs.py; FLOPs are multiply-adds.\n"
    write_text(
        str(Path(__file__).with_suffix(".yaml")), text + yaml.safe_dump(content, sort_keys=False)
    )


def build(name: str, place: str, arguments: dict, device: str) -> tuple[ContextBlock, dict]:
    """A block, and what its forward method takes."""
    channels, size = PLACES[place]
    with torch.device(device):
        block = build_context_block({"name": name, **arguments}, channels)
        inputs = {"x": torch.randn(1, channels, *size)}
        if place == "fusion":
            inputs["low"] = torch.randn(1, arguments["low_channels"], *size)
    return block, inputs


def count_block(name: str, place: str, arguments: dict) -> dict:
    """What depends on no machine."""
    block, inputs = build(name, place, arguments, "meta")
    block.eval()
    with torch.no_grad(), OperationCounter(block) as counter:
        block(**inputs)
    channels, size = PLACES[place]
    return {
        "block": name,
        "place": place,
        "options": arguments,
        "channels": channels,
        "size": f"{size[0]}x{size[1]}",
        "parameters": sum(p.numel() for p in block.parameters()),
        "gflops": round(counter.total.multiply_adds / 1e9, 2),
    }


def time_block(name: str, place: str, arguments: dict, *, runs: int) -> dict:
    """Milliseconds of a forward pass, and of a forward and backward pass in training."""
    block, inputs = build(name, place, arguments, "cpu")
    block.eval()

    def forward() -> None:
        with torch.no_grad():
            block(**inputs)

    def training() -> None:
        block(**{k: v.clone().requires_grad_() for k, v in inputs.items()}).sum().backward()

    times = {"forward_ms": fastest(forward, runs)}
    block.train()
    return times | {"training_ms": fastest(training, runs)}


def fastest(run: Callable[[], None], count: int) -> float:
    """Milliseconds of the fastest of ``count`` calls, after one that does not count."""
    run()
    found = []
    for _ in range(count):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return round(1000 * min(found), 1)


def count_model(name: str) -> dict:
    """Parameters and FLOPs of a recipe's model for a picture of 512x1024."""
    model = build_from_config(str(ROOT / f"configs/{name}.yaml"), [], device="meta")
    found = analyze(model, (512, 1024))
    return {
        "config": name,
        "parameters": sum(p.trainable + p.frozen for p in found.parameters.values()),
        "gflops": round(sum(c.multiply_adds for c in found.operations.values()) / 1e9, 1),
    }


if __name__ == "__main__":
    main()
