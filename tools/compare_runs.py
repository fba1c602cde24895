#!/usr/bin/env python
"""Puts several runs beside each other: a table of their figures, and their curves.

Examples:
    tools/compare_runs.py output/demo/fcn output/demo/dnl --picture output/compared.png
    tools/compare_runs.py output/pairs/* --chance 50 --picture output/compared.png
"""

import argparse

import _environment  # noqa: F401

from dnl_d2.errors import ending_in_one_line
from dnl_d2.files import check_folder
from dnl_d2.reporting.comparison import compare_text, draw_comparison, read_runs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="FOLDER", help="output folder of a run")
    add("--metric", metavar="NAME", help="such as sem_seg/mIoU; default: what they share")
    add("--picture", metavar="FILE", help="PNG of their curves")
    add("--chance", type=float, metavar="PERCENT", help="a figure to mark, such as guessing's")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Prints the table; the picture is written before it."""
    if args.picture:
        check_folder(args.picture)
    metric, runs = read_runs(args.runs, args.metric)
    if args.picture:
        draw_comparison(metric, runs, args.picture, chance=args.chance)
    print(compare_text(metric, runs))


if __name__ == "__main__":
    with ending_in_one_line("compare_runs.py"):
        main(parse_args())
