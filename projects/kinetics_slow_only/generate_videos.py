#!/usr/bin/env python
"""Writes the generated videos of moving discs, below $DETECTRON2_DATASETS or where --root says."""

import argparse
import os

from dnl_d2.errors import ending_in_one_line
from dnl_d2_kinetics.generated_motion import generate_motion


def parse_args() -> argparse.Namespace:
    """The options of the command line."""
    default = os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), "generated_motion")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", default=default, metavar="FOLDER", help="a new folder (default: %(default)s)"
    )
    parser.add_argument(
        "--train", type=int, default=800, metavar="N", help="videos (default: %(default)s)"
    )
    parser.add_argument(
        "--val", type=int, default=400, metavar="N", help="videos (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    with ending_in_one_line("generate_videos.py"):
        args = parse_args()
        generate_motion(args.root, train=args.train, val=args.val, seed=args.seed)
        print(args.root)
