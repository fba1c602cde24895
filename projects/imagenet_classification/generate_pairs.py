#!/usr/bin/env python
"""Writes the generated pairs of shapes, below $DETECTRON2_DATASETS or where --root says."""

import argparse
import os

from dnl_d2.errors import ending_in_one_line
from dnl_d2_imagenet.generated_pairs import generate_pairs

if __name__ == "__main__":
    default = os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), "pairs")
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--root", default=default, metavar="FOLDER", help="a new folder (default: %(default)s)")
    add("--train", type=int, default=4000, metavar="N", help="pictures (default: %(default)s)")
    add("--val", type=int, default=1000, metavar="N", help="pictures (default: %(default)s)")
    args = parser.parse_args()
    with ending_in_one_line("generate_pairs.py"):
        generate_pairs(args.root, train=args.train, val=args.val)
        print(args.root)
