"""Masks in COCO's form: polygons, and run lengths as a list or compressed into text."""

from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from pycocotools import mask as coco_mask

from dnl_d2.errors import UsageError

Polygons = list[list[Annotated[float, Meta(ge=-1e6, le=1e6)]]]
_BITS = 5  # of a run length in a character, whose sixth bit says that more follow
MAX_PIXELS = 2**30  # of an image, as of the pictures that are read
_NONE = np.empty(0, dtype=np.int64)
_FIRST = 48  # the character of zero


class RunLengths(Struct, gc=False):
    """Pixels column by column: how many are outside, then inside, and so on in turn."""

    size: tuple[int, int]  # height, width
    counts: list[Annotated[int, Meta(ge=0)]] | str


def check_mask(mask: Polygons | RunLengths, height: int, width: int, what: str) -> None:
    """Checks that a mask fits its image, without decoding it.

    pycocotools draws whatever polygons it is given, and takes memory in proportion to their length:
    no point may be farther from the image than this is long.

    Args:
        mask: ``segmentation`` of an annotation.
        height, width: of its image, in pixels.
        what: the annotation, for messages.

    Raises:
        UsageError: it does not fit.
    """
    if isinstance(mask, RunLengths):
        _check_runs(mask, (height, width), what)
        return
    side = max(height, width)
    for polygon in mask:
        if polygon and not (-side <= min(polygon) and max(polygon) <= 2 * side):
            far = min(polygon) if -side > min(polygon) else max(polygon)
            raise UsageError(
                f"{what} has a polygon with the coordinate {far:g}, far outside of its image of "
                f"{width}x{height} (width x height): write pixels, from 0 on"
            )


def has_pixels(runs: RunLengths) -> bool:
    """Whether run lengths that :func:`check_mask` has passed have a pixel inside."""
    if isinstance(runs.counts, list):
        return any(runs.counts[1::2])
    # All outside is one run, whose text is short: not every mask need be decoded for it.
    return len(runs.counts) > 7 or bool(_decompress(runs.counts)[1::2].any())


def has_points(mask: Polygons | RunLengths) -> bool:
    """Whether there is a mask at all: some tools write ``[[]]`` where there is none."""
    return isinstance(mask, RunLengths) or any(mask)


def whole_polygons(mask: Polygons) -> Polygons:
    """The polygons that have three points or more; Detectron2's loader leaves out the others."""
    return [polygon for polygon in mask if len(polygon) >= 6 and len(polygon) % 2 == 0]


def mask_area(mask: Polygons | RunLengths, height: int, width: int) -> float:
    """Pixels of a mask that :func:`check_mask` has passed."""
    if isinstance(mask, RunLengths):
        return float(_lengths(mask)[1::2].sum())
    polygons = whole_polygons(mask)
    if not polygons:
        return 0.0
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))))


def _check_runs(runs: RunLengths, size: tuple[int, int], what: str) -> None:
    if runs.size != size:
        raise UsageError(
            f"{what} has its mask as run lengths of the size {list(runs.size)}, its image has "
            f"{list(size)} (height, width)"
        )
    lengths = _lengths(runs)
    if not lengths.size or not 0 <= lengths.min() <= lengths.max() <= MAX_PIXELS:
        raise UsageError(
            f"{what} has 'counts' that are no run lengths: write a list of whole numbers, or what "
            "pycocotools.mask.encode returns"
        )
    if lengths.sum() != size[0] * size[1]:
        raise UsageError(
            f"{what} has run lengths that sum up to {lengths.sum()} pixels, its image has "
            f"{size[0] * size[1]}"
        )


def _lengths(runs: RunLengths) -> np.ndarray:
    if isinstance(runs.counts, str):
        return _decompress(runs.counts)
    try:
        return np.array(runs.counts, dtype=np.int64)
    except OverflowError:
        return _NONE


def _decompress(text: str) -> np.ndarray:
    """Run lengths from pycocotools' text; none where it is no such text.

    Each is written from its lowest five bits on, in two's complement; from the fourth on as the
    difference to the last but one.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST
    except UnicodeEncodeError:
        return _NONE
    if not codes.size or codes.min() < 0 or codes.max() >= 1 << (_BITS + 1) or codes[-1] >> _BITS:
        return _NONE
    last = np.flatnonzero(codes >> _BITS == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1
    if digits.max() > 7:  # 32 bits
        return _NONE
    shifts = _BITS * (np.arange(codes.size) - np.repeat(first, digits))
    numbers = np.add.reduceat((codes & 31) << shifts, first)
    numbers -= np.where(codes[last] & 16, 1 << (_BITS * digits), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
