#!/usr/bin/env python
"""Predicts pictures and videos of one's own: label maps or objects, drawn and as figures."""

import argparse
import sys

import _environment  # noqa: F401
from _pictures import add_options, for_each, open_predictor, open_sources, require_pictures
from tqdm import tqdm

from dnl_d2.errors import ending_in_one_line
from dnl_d2.prediction import Predictor
from dnl_d2.prediction.sources import Source
from dnl_d2.prediction.writing import write_prediction, write_video


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    args = parser.parse_args()
    require_pictures(parser, args)
    sources = open_sources(args)
    predict = open_predictor(args)
    return for_each(sources, lambda source: _predict(predict, source, args.output), args.output)


def _predict(predict: Predictor, source: Source, folder: str) -> None:
    results = (predict(frame) for frame in source.frames())
    if source.rate is None:
        write_prediction(folder, source.name, next(results))
    else:
        write_video(folder, source, tqdm(results, unit="frame", leave=False, disable=None))


if __name__ == "__main__":
    with ending_in_one_line("predict.py"):
        sys.exit(main())
