#!/usr/bin/env python
"""Writes the tables of READMEs and pages: results from configs/results.yaml and
configs/published.yaml, costs from docs/scripts/costs.yaml.

Text between ``<!-- results:NAME -->`` and ``<!-- end -->`` is replaced; ``--check`` only reports
whether a file is out of date.
"""

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path

import _environment  # noqa: F401
import yaml
from tabulate import tabulate

from dnl_d2.checkpoint.published_weights import of_recipe
from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.files import write_text

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BLOCKS = ("index", "nl", "snl", "gc", "dnl", "apnb", "afnb")
FILES = (
    "configs/README.md", "docs/which_config.md", *(f"docs/blocks/{name}.md" for name in _BLOCKS)
)  # fmt: skip
SOURCES = ("results.yaml", "published.yaml")
COSTS = "docs/scripts/costs.yaml"
_WHERE = " and ".join((*(f"configs/{name}" for name in SOURCES), COSTS))
# Up to the end, the next block, or where there is neither the end of the text.
_BLOCK = re.compile(
    r"(<!-- results:([\w-]+) -->\n).*?(<!-- end -->|(?=<!-- results:)|\Z)", re.DOTALL
)


def _github(table: list, headers: str | list[str] = "keys") -> str:
    """A table in Markdown; without ``headers``, rows are mappings by the title of the column."""
    return tabulate(table, headers, tablefmt="github", disable_numparse=True) + "\n"


def overview(rows: list[dict]) -> str:
    """A line for each run: figure, budget, cost and origin."""
    table = [
        {
            "config": f"`{row['config']}`",
            "mIoU": f"{row['miou']:.2f}",
            "ms+flip": f"{row['ms_flip']:.2f}" if "ms_flip" in row else "-",
            "iterations": row["iterations"],
            "s / iter": f"{row['seconds_per_iteration']:.2f}",
            "memory (MiB)": row["peak_memory_mib"],
            "commit": f"`{row['commit']}`",
            "seed": row["seed"],
        }
        for row in rows
    ]
    hardware = "; ".join(sorted({row["hardware"] for row in rows}))
    return f"{_github(table)}\nHardware: {hardware}.\n"


def classes(rows: list[dict]) -> str:
    """IoU of every class, a line for each run."""
    names = list(rows[0]["iou"])
    table = [[row["method"].upper(), *(f"{row['iou'][n]:.1f}" for n in names)] for row in rows]
    return _github(table, ["", *names])


def published(rows: list[dict]) -> str:
    """Published figures of every recipe of a dataset for segmentation, beside our own."""
    figures = {
        "mIoU": ("miou", 2),
        "flip": ("flip", 2),
        "ms+flip": ("ms_flip", 2),
        "memory (GB)": ("memory_gb", 1),
        "fps": ("fps", 2),
    }
    return _beside_own(rows, figures, own=("mIoU", "ms+flip"))


def detection(rows: list[dict]) -> str:
    """The same for detection with masks."""
    figures = {
        "box AP": ("box_ap", 1),
        "mask AP": ("mask_ap", 1),
        "memory (GB)": ("memory_gb", 1),
        "fps": ("fps", 1),
        "parameters (M)": ("params_m", 1),
        "GFLOPs": ("gflops", 1),
    }
    return _beside_own(rows, figures, own=("box AP", "mask AP"))


def _beside_own(
    rows: list[dict], figures: dict[str, tuple[str, int]], *, own: tuple[str, ...]
) -> str:
    """A line for each row.

    Args:
        rows: of published.yaml, with the own run of that config as ``own``, and as ``weights`` the
            published file.
        figures: key and digits of each column by its title.
        own: titles of the columns that are repeated for the own run.
    """

    def cells(row: dict, titles: Iterable[str], missing: str) -> list[str]:
        chosen = (figures[title] for title in titles)
        return [f"{row[key]:.{digits}f}" if key in row else missing for key, digits in chosen]

    headers = ["config", "source", *figures, *(f"own {title}" for title in own), "weights"]
    table = [
        [
            f"`{row['config']}`",
            row.get("source", "-"),
            *cells(row, figures, "-"),
            *cells(row["own"], own, "not run"),
            row["weights"],
        ]
        for row in rows
    ]
    return _github(table, headers)


def costs(rows: list[dict]) -> str:
    """What a block costs, a line for each place."""
    table = [
        {
            "block": f"`{row['block']}`",
            "where": row["place"],
            "options": ", ".join(f"{key} {value}" for key, value in row["options"].items()) or "-",
            "map": f"{row['channels']}x{row['size']}",
            "parameters (10³)": f"{row['parameters'] / 1e3:.0f}",
            "GFLOPs": f"{row['gflops']:.2f}",
            "forward (ms)": f"{row['forward_ms']:.0f}",
            "forward and backward (ms)": f"{row['training_ms']:.0f}",
        }
        for row in rows
    ]
    return f"{_github(table)}\nTimes: {rows[0]['hardware']}.\n"


def models(rows: list[dict]) -> str:
    """What a recipe's model costs, beside what was published of it."""
    table = [
        {
            "config": f"`{row['config']}`",
            "parameters (M)": f"{row['parameters'] / 1e6:.1f}",
            "GFLOPs": f"{row['gflops']:.0f}",
            "mIoU": f"{row['miou']:.2f}",
            "memory (GB)": row.get("memory_gb", "-"),
            "fps": row.get("fps", "-"),
        }
        for row in rows
    ]
    return _github(table)


TABLES = {make.__name__: make for make in (overview, classes, published, detection, costs, models)}


def cost_tables(content: dict, figures: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Rows by table name: blocks, each alone and all, and models with their published figures."""
    blocks = [row | {"hardware": content["hardware"]} for row in content["blocks"]]
    tables = {f"{row['block']}_costs": [] for row in blocks} | {"all_costs": blocks}
    for row in blocks:
        tables[f"{row['block']}_costs"].append(row)
    published_rows = {row["config"]: row for rows in figures.values() for row in rows}
    for row in content["models"]:
        name = f"{row['config'].partition('/')[0]}_models"
        tables.setdefault(name, []).append(published_rows[row["config"]] | row)
    return tables


def join(results: dict[str, list[dict]], figures: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Rows by table name: own runs, and published rows with the own run of that config."""
    own = {row["config"].removesuffix(".yaml"): row for rows in results.values() for row in rows}
    tables = {
        f"{name}_{kind}": rows for name, rows in results.items() for kind in ("overview", "classes")
    }
    for dataset, rows in figures.items():
        kind = "detection" if "box_ap" in rows[0] else "published"
        tables[f"{dataset}_{kind}"] = [
            row | {"own": own.get(row["config"], {}), "weights": _weights(row["config"])}
            for row in rows
        ]
    return tables


def _weights(recipe: str) -> str:
    """The name of a recipe's published weights, which links to the file."""
    file = of_recipe(recipe)
    return f"[`{file.name}`]({file.address})" if file else "-"


def render(text: str, tables: dict[str, list[dict]], *, path: str) -> str:
    """Fills in every block of a text; a block is named ``DATASET_TABLE``.

    Args:
        text: content of a README.
        tables: rows by table name.
        path: the README's, for messages.

    Raises:
        UsageError: a block has no end or an unknown name, or a row lacks a key of its table.
    """

    def fill(match: re.Match) -> str:
        start, name, end = match.groups()
        if not end:
            raise UsageError(f"{path}: block {name} has no <!-- end -->, write one after it")
        if name not in tables:
            raise UsageError(f"{path}: no table {name!r}; there are {', '.join(sorted(tables))}")
        try:
            return f"{start}{TABLES[name.rpartition('_')[2]](tables[name])}{end}"
        except KeyError as error:
            raise UsageError(f"{path}: a row of {name} lacks {error}: see {_WHERE}") from error

    return _BLOCK.sub(fill, text)


def _load(name: str) -> dict:
    path = os.path.join(ROOT, name)
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file) or {}
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def _read(name: str) -> dict[str, list[dict]]:
    path = os.path.join("configs", name)
    content = _load(path)
    for dataset, rows in content.items():
        if not rows or any("config" not in row for row in rows):
            raise UsageError(f"{path}: {dataset} has no row, or one without config")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if out of date")
    args = parser.parse_args()
    results, figures = map(_read, SOURCES)
    tables = join(results, figures) | cost_tables(_load(COSTS), figures)
    changed = {}
    for name in FILES:  # all of them before the first is written
        path = os.path.join(ROOT, name)
        old = Path(path).read_text(encoding="utf-8")
        new = render(old, tables, path=name)
        if new != old and args.check:
            raise UsageError(f"{name} is out of date; run tools/make_tables.py")
        if new != old:
            changed[path] = new
    for path, new in changed.items():
        write_text(path, new)


if __name__ == "__main__":
    with ending_in_one_line("make_tables.py"):
        main()
