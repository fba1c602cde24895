#!/usr/bin/env python
"""Writes the result tables of README.md and configs/README.md from configs/results.yaml.

Text between ``<!-- results:NAME -->`` and ``<!-- end -->`` is replaced; ``--check`` only reports
whether a file is out of date.
"""

import argparse
import os
import re
import sys

import yaml
from tabulate import tabulate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ("README.md", "configs/README.md")
_BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def overview(rows: list[dict]) -> str:
    """A line for each run: figure, budget, cost and origin."""
    headers = ["config", "mIoU", "iterations", "s / iter", "memory (MiB)", "commit", "seed"]
    table = [
        [
            f"`{row['config']}`",
            f"{row['miou']:.2f}",
            row["iterations"],
            f"{row['seconds_per_iteration']:.2f}",
            row["peak_memory_mib"],
            f"`{row['commit']}`",
            row["seed"],
        ]
        for row in rows
    ]
    hardware = sorted({row["hardware"] for row in rows})
    return tabulate(table, headers, tablefmt="github", disable_numparse=True) + (
        "\n\nHardware: " + "; ".join(hardware) + ".\n"
    )


def classes(rows: list[dict]) -> str:
    """IoU of every class, a line for each run."""
    names = list(rows[0]["iou"])
    table = [[row["method"].upper(), *(f"{row['iou'][n]:.1f}" for n in names)] for row in rows]
    return tabulate(table, ["", *names], tablefmt="github", disable_numparse=True) + "\n"


TABLES = {"overview": overview, "classes": classes}


def render(text: str, results: dict[str, list[dict]]) -> str:
    """``text`` with every block filled in; a block is named ``DATASET_TABLE``."""

    def fill(match: re.Match) -> str:
        dataset, _, table = match[2].rpartition("_")
        return f"{match[1]}{TABLES[table](results[dataset])}{match[3]}"

    return _BLOCK.sub(fill, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if out of date")
    args = parser.parse_args()
    with open(os.path.join(ROOT, "configs", "results.yaml")) as file:
        results = yaml.safe_load(file)
    for name in FILES:
        path = os.path.join(ROOT, name)
        with open(path) as file:
            old = file.read()
        new = render(old, results)
        if new != old and args.check:
            sys.exit(f"make_tables.py: error: {name} is out of date; run tools/make_tables.py")
        if new != old:
            with open(path, "w") as file:
                file.write(new)


if __name__ == "__main__":
    main()
