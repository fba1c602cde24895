#!/usr/bin/env python
"""Predicts pictures and videos of one's own: label maps or objects, drawn and as figures."""

import argparse
import os
import sys

import _environment  # noqa: F401
from tqdm import tqdm

from dnl_d2.config.imports import add_import_option, import_modules
from dnl_d2.errors import UsageError, ending_in_one_line, one_line
from dnl_d2.files import WriteError
from dnl_d2.prediction import Predictor
from dnl_d2.prediction.sources import Source, find_sources
from dnl_d2.prediction.writing import make_folder, write_prediction, write_video


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="X", help="config or recipe's name")
    parser.add_argument("--weights", help="file or address; default: those of the config")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--min-score", type=float, default=0.5, help="of objects; default: 0.5")
    add_import_option(parser)
    parser.add_argument(
        "sources", nargs="+", metavar="IMAGE|FOLDER|GLOB|VIDEO|-", help="- is standard input"
    )
    parser.add_argument(
        "--opts",
        nargs="+",
        default=[],
        help="overrides of the config; must come last, for it takes all that follows",
    )
    args = parser.parse_args()

    import_modules(args.imports)
    args.output = os.path.expanduser(args.output)
    args.sources = [os.path.expanduser(source) for source in args.sources]
    _require_other_folder(args.output, args.sources)
    sources = find_sources(args.sources, without=args.output)
    make_folder(args.output)
    predict = Predictor(
        args.config_file,
        weights=args.weights,
        device=args.device,
        overrides=args.opts,
        min_score=args.min_score,
    )
    failed = []
    for source in tqdm(sources, unit="file", disable=None):
        try:
            _predict(predict, source, args.output)
        except WriteError:
            raise
        except UsageError as error:
            failed.append(source.path)
            tqdm.write(f"predict.py: {one_line(error)}", file=sys.stderr)
    print(f"{len(sources) - len(failed)} of {len(sources)} files: results are in {args.output}")
    return 1 if failed else 0


def _predict(predict: Predictor, source: Source, folder: str) -> None:
    results = (predict(frame) for frame in source.frames())
    if source.rate is None:
        write_prediction(folder, source.name, next(results))
    else:
        write_video(folder, source, tqdm(results, unit="frame", leave=False, disable=None))


def _require_other_folder(output: str, arguments: list[str]) -> None:
    """Results among the pictures would be taken for pictures the next time."""
    for argument in arguments:
        folder = argument if os.path.isdir(argument) else os.path.dirname(argument)
        if os.path.realpath(output) == os.path.realpath(folder or "."):
            raise UsageError(f"--output {output} is a folder of the pictures: choose another one")


if __name__ == "__main__":
    with ending_in_one_line("predict.py"):
        sys.exit(main())
