#!/usr/bin/env python
"""Prints the accuracies of several runs as a table, and draws their curves."""

import argparse

from dnl_d2.errors import ending_in_one_line
from dnl_d2.files import check_folder
from dnl_d2_kinetics.comparison import as_table, draw_comparison


def parse_args() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="output folder of a run")
    parser.add_argument("--output", metavar="FILE", help="PNG of the curves")
    parser.add_argument("--chance", type=float, metavar="PERCENT", help="to mark in the picture")
    return parser.parse_args()


if __name__ == "__main__":
    with ending_in_one_line("compare_runs.py"):
        args = parse_args()
        if args.output:
            check_folder(args.output)
            draw_comparison(args.runs, args.output, args.chance)
        print(as_table(args.runs))
