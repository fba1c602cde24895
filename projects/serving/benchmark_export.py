#!/usr/bin/env python
"""Exports models in every format and prints a table: differences from the model, and times.

The weights are random, blocks included, which start as identities,
and batch norms are calibrated on a picture. Times are the best of several
runs in which the model itself and the files take turns, so that other load meets all of them.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dnl_d2 import model_zoo, optimize_for_inference
from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.export import FORMATS, checking
from dnl_d2.export.detector import detector_graph
from dnl_d2.export.graph import Graph
from dnl_d2.export.rcnn import rcnn_graph
from dnl_d2.export.segmentor import segmentor_graph
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.modeling.from_config import build_from_config

_COLUMNS = (
    "model", "size", "format", "MB", "largest difference", "labels or objects that differ", "ms",
    "eager ms", "optimised eager ms",
)  # fmt: skip


def main() -> None:
    """Reads the command line and prints the table, a model at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="name in the model zoo")
    parser.add_argument("--size", type=int, nargs=2, default=(253, 509), metavar=("H", "W"))
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--opts", nargs="+", default=[], help="overrides of every config")
    args = parser.parse_args()
    print(f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|", sep="\n")
    for recipe in args.recipes:
        config = model_zoo.get_config_file(recipe)
        model = randomize(build_from_config(config, args.opts, device="cpu").eval())
        print_rows(recipe, model, tuple(args.size), args.formats, args.runs)


def randomize(model: nn.Module) -> nn.Module:
    """Weights under which blocks are no identities and classes depend on the picture."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(("predictor.weight", "cls_score.weight")):
            nn.init.normal_(parameter, std=0.2)
        elif name.endswith("weight") and not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model


def calibrate(model: nn.Module, graph: Graph) -> None:
    """Takes the statistics of batch norms from a picture: random layers would grow without."""

    def take(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        norm.running_mean = inputs[0].mean((0, 2, 3))
        norm.running_var = inputs[0].var((0, 2, 3), unbiased=False) + 1e-3

    norms = [m for m in model.modules() if getattr(m, "running_var", None) is not None]
    hooks = [norm.register_forward_pre_hook(take) for norm in norms]
    graph(graph.example)
    for hook in hooks:
        hook.remove()


def print_rows(
    name: str, model: nn.Module, size: tuple[int, int], formats: list[str], runs: int
) -> None:
    """Exports a model in the formats, and prints a row of each."""
    make = segmentor_graph if isinstance(model, ContextSegmentor) else detector_graph
    graph = make(model, dtype=torch.uint8)
    calibrate(model, replace(graph, example=checking.inputs(graph)[0]))
    fast = make(optimize_for_inference(model), dtype=torch.uint8)
    images = checking.inputs(graph, [(1, *size)])
    files: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {}
    rows: dict[str, str] = {}
    for format in formats:
        try:
            files[format], rows[format] = exported(format, graph, fast, images)
        except UsageError as error:
            print(f"| {name} | {size[0]}x{size[1]} | {format} | | {error} | | | | |", flush=True)
    took = best_times({"eager": graph, "optimised": fast, **files}, images[0], runs)
    for format, row in rows.items():
        times = f"{took[format]:.0f} | {took['eager']:.0f} | {took['optimised']:.0f}"
        print(f"| {name} | {size[0]}x{size[1]} | {format} | {row} | {times} |", flush=True)


def exported(
    format: str, graph: Graph, fast: Graph, images: list[Tensor]
) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], str]:
    """What the file computes, and the cells of the table that are no times."""
    if (format, graph.task) == ("torch-export", "detection"):
        fast = rcnn_graph(fast.module.model, dtype=torch.uint8)
    content = FORMATS[format].build(fast, json.dumps({"task": graph.task}), None)
    run = FORMATS[format].load(content)
    found = checking.compare(graph, run, images)
    values = ", ".join(f"{value:.1e} of {name}" for name, value in found.largest.items())
    if graph.task == "segmentation":
        values += f" (to {found.scale:.1f})"
    cells = f"{len(content) / 2**20:.0f} | {values} | {found.different} of {found.compared}"
    return run, cells


def best_times(
    functions: dict[str, Callable[[Tensor], object]], images: Tensor, runs: int
) -> dict[str, float]:
    """Milliseconds: each function once in every round, and the best of the rounds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function(images)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(taken[1:]) for name, taken in times.items()}  # without the first


if __name__ == "__main__":
    with ending_in_one_line("benchmark_export.py"):
        main()
