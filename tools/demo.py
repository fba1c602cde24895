#!/usr/bin/env python
"""Trains FCN and DNL alike on generated data, evaluates both, prints a table, draws a picture."""

import argparse
import contextlib
import io
import logging
import os
import sys
import time

import _environment  # noqa: F401
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from dnl_d2.data import read_label
from dnl_d2.engine import load_config, run
from dnl_d2.errors import ending_in_one_line
from dnl_d2.prediction import Predictor
from dnl_d2.prediction.pixels import middle
from dnl_d2.synthetic import generate_dataset
from dnl_d2.visualization import color_label, draw_rows

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "configs", "generated", "{}_r18w32_800_generated-192x192.py")
METHODS = ("fcn", "dnl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/demo", help="folder for everything it writes")
    parser.add_argument("--iterations", type=int, default=800, help="training steps per model")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.iterations < 1:
        parser.error(f"--iterations must be at least 1, got {args.iterations}")

    note = too_short(args.iterations)
    print(note, end="", flush=True)
    os.environ["DETECTRON2_DATASETS"] = os.path.abspath(os.path.join(args.output, "datasets"))
    generate_dataset(os.path.join(os.environ["DETECTRON2_DATASETS"], "generated"), size=192)
    results, predictors = {}, {}
    for number, method in enumerate(METHODS, start=1):
        print(f"[{number}/{len(METHODS)}] {method.upper()}", flush=True)
        results[method], predictors[method] = train(method, args)
    print_table(results, predictors)
    print(note, end="")
    picture = os.path.join(args.output, "demo.png")
    draw(picture, predictors)
    print(f"picture: {picture}")


def too_short(iterations: int) -> str:
    """What to expect of fewer iterations than the recipe's; empty for enough."""
    budget = load_config(CONFIG.format("dnl")).train.max_iter
    if iterations >= budget:
        return ""
    return (
        f"note: {iterations} iterations are fewer than the recipe's {budget}: DNL passes the 62 "
        "mIoU that a model without a view of the whole picture can reach only after about half of "
        "those, so the two may not differ yet\n"
    )


def train(method: str, args: argparse.Namespace) -> tuple[dict, Predictor]:
    """Trains and evaluates one model; returns its figures and what predicts with it."""
    folder = os.path.join(args.output, method)
    cfg = load_config(
        CONFIG.format(method),
        [
            f"train.max_iter={args.iterations}",
            f"train.checkpointer.period={args.iterations}",
            f"train.device={args.device}",
            f"train.log_period={max(args.iterations // 8, 1)}",
        ],
    )
    cfg.train.output_dir = folder  # a path may hold what an override cannot
    flags = argparse.Namespace(
        eval_only=False, resume=False, overwrite=True, config_file=CONFIG.format(method)
    )
    start = time.perf_counter()
    with quiet_but_progress():
        figures = run(cfg, flags)["sem_seg"]
    figures["seconds"] = time.perf_counter() - start
    weights = os.path.join(folder, "model_final.pth")
    with quiet_but_progress():
        return figures, Predictor(cfg, weights=weights, device=args.device)


class _Progress(io.TextIOBase):
    """Passes on the log lines that hold losses and ETA; log.txt in the output folder has all."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        if "eta: " in text:
            self.stream.write(text)
            self.stream.flush()
        return len(text)


@contextlib.contextmanager
def quiet_but_progress():
    """Detectron2's log reduced to :class:`_Progress`, its handlers removed afterwards.

    They would otherwise write the next model's log into this one's folder too.
    """
    with contextlib.redirect_stdout(_Progress(sys.stdout)):
        yield
    for name in ("fvcore", "detectron2", "dnl_d2"):
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)


def print_table(results: dict, predictors: dict) -> None:
    """mIoU and IoU by class of both models, from Detectron2's evaluator."""
    classes = MetadataCatalog.get("generated_sem_seg_val").stuff_classes
    rows = []
    for method, figures in results.items():
        parameters = sum(p.numel() for p in predictors[method].model.parameters()) / 1e6
        ious = [figures[f"IoU-{name}"] for name in classes]
        rows.append(
            [method.upper(), f"{parameters:.2f}M", figures["seconds"], figures["mIoU"], *ious]
        )
    headers = ["model", "parameters", "seconds", "mIoU", *classes]
    print(tabulate(rows, headers, floatfmt=".1f", numalign="right"))


def draw(path: str, predictors: dict, examples: int = 3) -> None:
    """One row per validation image: image, truth, both predictions, both attention maps."""
    name = "generated_sem_seg_val"
    meta, rows, queries = MetadataCatalog.get(name), [], []
    for record in DatasetCatalog.get(name)[:examples]:
        seen = predictors["dnl"].attention(record["file_name"])
        label = read_label(record["sem_seg_file_name"])
        panels = {"image": seen.image, "truth": color_label(label, meta.stuff_colors)}
        for method, predict in predictors.items():
            predicted = np.asarray(predict(record["file_name"]))
            panels[method.upper()] = color_label(predicted, meta.stuff_colors)
        query = telling_pixel(label, meta.stuff_classes)
        panels["DNL pairwise (of +)"] = seen.overlay(seen.main_block, "whitened", query)
        panels["DNL unary"] = seen.overlay(seen.main_block, "unary")
        rows.append(panels)
        queries.append(query)
    legend = dict(zip(meta.stuff_classes, meta.stuff_colors, strict=True))
    draw_rows(path, rows, queries=queries, legend=legend)


def telling_pixel(label: np.ndarray, classes: list[str]) -> tuple[int, int]:
    """A pixel whose class is decided elsewhere: in a paired disc if there is any, or in stripes."""
    paired = classes.index("paired") in label
    names = ["paired"] if paired else ["texture_a", "texture_b"]
    return middle(np.isin(label, [classes.index(name) for name in names]))


if __name__ == "__main__":
    with ending_in_one_line("demo.py"):
        main()
