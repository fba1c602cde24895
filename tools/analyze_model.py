#!/usr/bin/env python
"""Counts parameters, FLOPs (multiply-adds) and activations of a config's model, part by part.

Examples:
    tools/analyze_model.py --config-file configs/coco/....yaml
    tools/analyze_model.py --config-file configs/cityscapes/....py --size 1024 2048
    tools/analyze_model.py --config-file X.yaml --json X.json MODEL.RESNETS.DEPTH 101
"""

import argparse
import shlex

import _environment  # noqa: F401

from dnl_d2.analysis import Regions, analyze, as_json, as_text
from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.errors import ending_in_one_line
from dnl_d2.files import check_folder, write_text
from dnl_d2.modeling.from_config import build_from_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", required=True, help="YAML or LazyConfig")
    add_import_option(parser)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(800, 1280),
        metavar=("HEIGHT", "WIDTH"),
        help="of the image (default: 800 1280)",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help="of the clip, for a model of videos"
    )
    parser.add_argument(
        "--proposals",
        type=int,
        default=Regions().proposals,
        metavar="N",
        help="boxes that each stage of a box head gets (default: %(default)s)",
    )
    parser.add_argument(
        "--detections",
        type=int,
        default=Regions().detections,
        metavar="N",
        help="boxes that a mask or keypoint head gets (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="OVERRIDE", help="overrides of the config, last"
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Prints the table; the file is written before it, whole or not at all."""
    if args.json:
        check_folder(args.json)
    import_modules(args.imports)
    model = build_from_config(args.config_file, args.opts, device="meta")
    regions = Regions(args.proposals, args.detections)
    frames = () if args.frames is None else (args.frames,)
    analysis = analyze(model, (*frames, *args.size), regions)
    if args.json:
        asked = {"config": args.config_file, "overrides": args.opts, **regions._asdict()}
        write_text(args.json, as_json(analysis, **asked))
    print(shlex.join([args.config_file, *args.opts]))
    print(as_text(analysis))


if __name__ == "__main__":
    with ending_in_one_line("analyze_model.py"):
        main(parse_args())
