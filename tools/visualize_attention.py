#!/usr/bin/env python
"""Draws where the context blocks of a model look in pictures and videos of one's own."""

import argparse
import re
import sys
from collections.abc import Iterator

import _environment  # noqa: F401
from _pictures import add_options, for_each, open_predictor, open_sources, require_pictures
from tqdm import tqdm

from dnl_d2.errors import UsageError, ending_in_one_line
from dnl_d2.layers.context_block import choices
from dnl_d2.prediction import AttentionMaps
from dnl_d2.prediction.attention import TERMS
from dnl_d2.prediction.attention_writing import write_attention, write_attention_video
from dnl_d2.prediction.pixels import Point, points_of
from dnl_d2.prediction.sources import Source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--block", nargs="+", action="extend", default=[], metavar="NAME",
        help="names as --list shows them; default: the head's block, else the backbone's last",
    )  # fmt: skip
    parser.add_argument(
        "--pixels", nargs="+", action="extend", type=_point, default=[], metavar="ROW,COLUMN",
        help="whose maps to draw; default: in the middle of the largest classes or objects",
    )  # fmt: skip
    parser.add_argument(
        "--term", choices=TERMS, help="of a video; default: whitened where the block has it"
    )
    parser.add_argument("--npz", action="store_true", help="write the weights too, as NumPy arrays")
    parser.add_argument("--list", action="store_true", help="only list the blocks and their terms")
    args = parser.parse_args()
    if not args.list:
        require_pictures(parser, args)
    sources = [] if args.list else open_sources(args)
    predict = open_predictor(args)
    known = predict.attention_blocks()
    if args.list:
        for name, terms in known.items():
            print(f"{name}: {' '.join(terms)}")
        return 0
    for name in args.block:
        if name not in known:
            raise UsageError(
                f"--block: the model has no context block {name!r}; {choices(name, list(known))}"
            )
    blocks = args.block or [list(known)[-1]]
    terms = known[blocks[0]]
    term = args.term or ("whitened" if "whitened" in terms else terms[0])
    if term not in terms:
        raise UsageError(f"--term: {blocks[0]} has no {term} map; {choices(term, list(terms))}")

    def show(source: Source) -> None:
        maps = (predict.attention(frame) for frame in source.frames())
        if source.rate is None:
            _show_picture(args, source, next(maps), blocks)
        else:
            _show_video(args, source, maps, blocks[0], term)

    return for_each(sources, show, args.output)


def _show_picture(
    args: argparse.Namespace, source: Source, seen: AttentionMaps, blocks: list[str]
) -> None:
    points = args.pixels or points_of(seen.image, seen.prediction)
    write_attention(args.output, source.name, seen, blocks, points, npz=args.npz)
    if any(seen.needs_pixel(block, term) for block in blocks for term in seen.blocks[block]):
        tqdm.write(f"{source.path}: {', '.join(map(str, points))}")


def _show_video(
    args: argparse.Namespace, source: Source, maps: Iterator[AttentionMaps], block: str, term: str
) -> None:
    frames = tqdm(maps, unit="frame", leave=False, disable=None)
    wanted = args.pixels[0] if args.pixels else None
    point = write_attention_video(args.output, source, frames, block=block, term=term, point=wanted)
    tqdm.write(f"{source.path}: {point}, {term} of {block}")


def _point(text: str) -> Point:
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ROW,COLUMN of whole numbers, such as 120,64 (pictures come before)"
        )
    return Point(int(found[1]), int(found[2]))


if __name__ == "__main__":
    with ending_in_one_line("visualize_attention.py"):
        sys.exit(main())
