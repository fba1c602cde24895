#!/usr/bin/env python
"""Translates a public weights file into one of this library, or back.

Examples:
    tools/convert_weights.py dnl_r50-d8_512x1024_40k_cityscapes.pth dnl.pth
    tools/convert_weights.py mmseg://dnl_r50-d8_512x1024_40k_cityscapes dnl.pth
    tools/convert_weights.py model.pdparams dnl.safetensors --write-config dnl_model.yaml
    tools/convert_weights.py IN.pth OUT.pth --config-file configs/....yaml
    tools/convert_weights.py output/.../model_best.pth mmseg.pth --to mmseg
"""

import argparse

import _environment  # noqa: F401

from dnl_d2.checkpoint.convert import source_names
from dnl_d2.checkpoint.convert_file import BACK, convert_file
from dnl_d2.errors import ending_in_one_line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "input",
        metavar="IN",
        help=".pth, .pkl, .pdparams, .safetensors, or the name of a published file",
    )
    parser.add_argument("output", metavar="OUT", help=".pth or .safetensors")
    parser.add_argument(
        "--source",
        choices=source_names(),
        metavar="NAME",
        help="the code base that wrote IN (default: told from its keys): "
        + ", ".join(source_names()),
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the model that the weights are for, YAML or LazyConfig (default: the model that "
        "their names and shapes describe)",
    )
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="OVERRIDE", help="overrides of the config"
    )
    parser.add_argument(
        "--to", choices=sorted(BACK), help="write the weights with the names of that code base"
    )
    parser.add_argument(
        "--write-config", metavar="FILE.yaml", help="also write the YAML keys of the model"
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let IN run code while it is read: it can do all that you can do",
    )
    parser.add_argument(
        "--ignore-unexpected",
        action="store_true",
        help="leave out parameters that the model has no place for",
    )
    parser.add_argument("--verbose", action="store_true", help="list every renamed key")
    return parser.parse_args()


if __name__ == "__main__":
    with ending_in_one_line("convert_weights.py"):
        print(convert_file(**vars(parse_args())))
