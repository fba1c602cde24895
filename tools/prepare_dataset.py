#!/usr/bin/env python
"""Makes the label maps that training reads from the files of a dataset's archives.

Safe to interrupt and to run again: what is done, and whole, is left alone. A broken file does not
stop the others; it is named, and the exit status is not 0. docs/datasets.md shows the folders.

Examples:
    tools/prepare_dataset.py cityscapes
    tools/prepare_dataset.py voc --root /data --workers 16
"""

import argparse
import sys

import _environment  # noqa: F401

from dnl_d2.errors import ending_in_one_line
from dnl_d2.preparation import PREPARATIONS, prepare_dataset


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(PREPARATIONS), help="the dataset")
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder that holds the dataset's folder (default: $DETECTRON2_DATASETS or ./datasets)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads (default: one per processor, 8 at most)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        with ending_in_one_line("prepare_dataset.py"):
            print(prepare_dataset(**vars(parse_args())))
    except KeyboardInterrupt:
        print("prepare_dataset.py: interrupted: run it again to go on", file=sys.stderr)
        sys.exit(130)
