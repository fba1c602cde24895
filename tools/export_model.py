#!/usr/bin/env python
"""Writes a trained model as a file that runs without this library, checked against the model."""

import argparse
import os

import _environment  # noqa: F401

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.errors import ending_in_one_line
from dnl_d2.export import FORMATS, Exported, checked_target, export_model
from dnl_d2.prediction import Predictor


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="X", help="config or recipe's name")
    parser.add_argument("--weights", help="file or address; default: those of the config")
    parser.add_argument("--format", required=True, choices=list(FORMATS))
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="of every input; default any"
    )
    parser.add_argument("--opset", type=int, help="of ONNX; default: the least that will do")
    parser.add_argument("--device", default="cpu", help="that the graph is made on; default: cpu")
    parser.add_argument(
        "--no-optimize", action="store_true", help="keep batch norms apart from convolutions"
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare with the model")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    add_import_option(parser)
    parser.add_argument(
        "--opts", nargs="+", default=[], help="overrides of the config, after everything else"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    checked_target(args.output, args.format, overwrite=args.overwrite)
    import_modules(args.imports)
    predictor = Predictor(
        args.config_file,
        weights=args.weights,
        device=args.device,
        overrides=args.opts,
        precision="float32",  # TEST.PRECISION is for predictions here
    )
    exported = export_model(
        predictor,
        args.output,
        format=args.format,
        size=args.size,
        opset=args.opset,
        optimize=not args.no_optimize,
        check=not args.no_check,
        overwrite=args.overwrite,
    )
    report(exported)


def report(exported: Exported) -> None:
    megabytes = os.path.getsize(exported.path) / 2**20
    print(f"{exported.path}: {megabytes:.1f} MB, {exported.format}")
    print(f"input {exported.metadata['input']}")
    print(f"outputs {', '.join(exported.metadata['outputs'])}")
    if exported.comparison is None:
        print("not compared with the model")
    else:
        print(f"as the model itself in {FORMATS[exported.format].runtime}, {exported.comparison}")


if __name__ == "__main__":
    with ending_in_one_line("export_model.py"):
        main()
