#!/usr/bin/env python
"""Writes a generated dataset, whole or not at all.

A folder that holds it with the same options already is left alone; with other options it is drawn
anew, and what is in the folder goes.

Examples:
    tools/generate_dataset.py instances
    tools/generate_dataset.py sem_seg --root /data --size 192 --seed 1
"""

import argparse
import os
from collections.abc import Sequence

import _environment  # noqa: F401

from dnl_d2.data.datasets.registration import dataset_path
from dnl_d2.errors import ending_in_one_line
from dnl_d2.synthetic import generate_dataset, generate_instances

# By name: what writes it, and its folder below that of all datasets.
DATASETS = {
    "instances": (generate_instances, "generated_instances"),
    "sem_seg": (generate_dataset, "generated"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(DATASETS), help="which task's")
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder that holds the dataset's folder (default: $DETECTRON2_DATASETS or ./datasets)",
    )
    for option, what in (
        ("train", "number of training pictures"),
        ("val", "number of validation pictures"),
        ("size", "height and width of a picture"),
        ("seed", "seed of all pictures"),
    ):
        parser.add_argument(f"--{option}", type=int, metavar="N", help=what)
    given = vars(parser.parse_args(arguments))
    options = {key: value for key, value in given.items() if value is not None}
    generate, folder = DATASETS[options.pop("name")]
    root = options.pop("root", None)
    path = os.path.join(root, folder) if root else dataset_path(folder)
    generate(path, **options)
    print(f"{path} is complete")


if __name__ == "__main__":
    with ending_in_one_line("generate_dataset.py"):
        main()
