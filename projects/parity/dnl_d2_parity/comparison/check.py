"""Compares this library with mmsegmentation: converted weights, outputs, training, label maps.

For each model: a reference with random weights and statistics from the published config, saved as
a public file, converted and loaded strictly; then what the two make of the same picture and
labels. Differences are max |ours - theirs| / max |theirs|. Exits with 1 if one is too large.
Needs requirements/parity.txt, which `make test` installs.
"""

import argparse
import itertools
import json
import sys
import time

import torch

from dnl_d2_parity import comparison
from dnl_d2_parity.tables import markdown

PUBLISHED = ("nl", "gc", "dnl", "ann")
# (method, depth, align_corners, num_classes)
ALL = list(itertools.product(PUBLISHED, (50, 101), (False, True), (19, 21, 150)))
SHORT = [
    ("nl", 50, False, 19),
    ("gc", 50, True, 150),
    ("dnl", 101, True, 19),
    ("ann", 50, False, 21),
]
# Largest difference allowed by column of the table. Gradients in fp32 have no bar: rounding turns
# single ReLUs on or off whose input is all but zero, and then a gradient jumps.
BARS = {
    "logits": 1e-4,
    "block (fp64)": 1e-9,
    "loss (fp64)": 1e-10,  # mmsegmentation adds 1e-7 to the number of pixels it divides by
    "gradient (fp64)": 1e-7,
    "weights (fp64)": 1e-9,
    "missing": 0,
    "unexpected": 0,
    "whole": 0,
    "sliding": 0,
}
SIZE, ORIGINAL, WINDOW, STRIDE = (65, 97), (131, 203), (41, 57), (24, 31)
TRAIN_SIZE = (33, 65)


def compare(method: str, depth: int, align_corners: bool, num_classes: int) -> dict:
    """One line of the table."""
    options = dict(depth=depth, align_corners=align_corners, num_classes=num_classes, dropout=0.1)
    twins = comparison.twins(method, **options)
    image = comparison.picture(*SIZE)
    whole = comparison.predict(twins, image, ORIGINAL)
    block = comparison.block_difference(twins)
    comparison.slide(twins, WINDOW, STRIDE)
    sliding = comparison.predict(twins, image, ORIGINAL)
    batch = comparison.batch(*TRAIN_SIZE, num_classes)
    single = comparison.train(twins, *batch)
    twins = comparison.twins(method, **options).double()
    with comparison.float64_constants():
        training = comparison.train(twins, *batch)
    return {
        "model": f"{method} r{depth}",
        "align": "on" if align_corners else "off",
        "classes": num_classes,
        "matched": len(twins.keys.matched),
        "missing": len(twins.keys.missing) + len(twins.keys.mismatched),
        "unexpected": len(twins.keys.unexpected) + len(twins.left_over),
        "logits": max(whole.logits, sliding.logits),
        "block (fp64)": block,
        "loss (fp64)": training.loss,
        "gradient (fp64)": training.gradient,
        "weights (fp64)": training.weights,
        "gradient": single.gradient,
        "whole": whole.pixels - whole.ties,
        "sliding": sliding.pixels - sliding.ties,
        "ties": whole.ties + sliding.ties,
    }


def too_large(row: dict) -> list[str]:
    """Columns that miss their bar; NaN does."""
    return [name for name, bar in BARS.items() if not row[name] <= bar]


def main(argv: list[str] | None = None) -> int:
    """Prints the table; 0 if every difference is below its bar, otherwise 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="one model per method")
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=PUBLISHED)
    parser.add_argument("--json", metavar="OUT", help="also write the table to this file")
    args = parser.parse_args(argv)
    start, rows = time.perf_counter(), []
    for model in SHORT if args.short else ALL:
        if model[0] in args.models:
            rows.append(compare(*model))
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    table = [{k: f"{v:.1e}" if isinstance(v, float) else v for k, v in r.items()} for r in rows]
    print(markdown(table, "keys"))
    print(f"\n{len(rows)} models, {time.perf_counter() - start:.0f} s, torch {torch.__version__}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"bars": BARS, "rows": rows}, file, indent=1)
    failed = {f"{r['model']} {r['align']} {r['classes']}": too_large(r) for r in rows}
    for name, columns in failed.items():
        if columns:
            print(f"{name}: too large: {', '.join(columns)}")
    return int(any(failed.values()))
