"""Masks in COCO's form, judged without decoding them."""

import math
from collections.abc import Mapping
from typing import Any

from dnl_d2.errors import UsageError

# Six bits to a character, from "0" on: pycocotools' compressed run lengths.
_COMPRESSED = frozenset(chr(code) for code in range(48, 112))


def check_mask(shape: Any, image: Mapping, what: str) -> None:
    """Checks type and numbers of a mask that is there, and the size of one in run lengths.

    Args:
        shape: ``segmentation`` of an annotation, not empty: polygons, or a mapping with run
            lengths, as a list or compressed.
        image: the entry of its image.
        what: the annotation, for messages.

    Raises:
        UsageError: it is neither, or does not fit the image.
    """
    if isinstance(shape, Mapping):
        _check_runs(shape, [image["height"], image["width"]], what)
    elif not isinstance(shape, list) or not all(map(_is_points, shape)):
        raise UsageError(
            f"{what} has a 'segmentation' that is no list of polygons [x1, y1, x2, y2, ...] in "
            "finite numbers: correct it or take it off"
        )


def _check_runs(runs: Mapping, size: list[int], what: str) -> None:
    counts = runs.get("counts")
    if runs.get("size") != size:
        raise UsageError(
            f"{what} has its mask as run lengths of the size {runs.get('size')!r}, its image has "
            f"{size!r} (height, width)"
        )
    if isinstance(counts, list):
        sound = all(type(n) is int and n >= 0 for n in counts)
        if sound and sum(counts) != size[0] * size[1]:
            raise UsageError(
                f"{what} has run lengths that sum up to {sum(counts)} pixels, its image has "
                f"{size[0] * size[1]}"
            )
    else:
        sound = isinstance(counts, str) and bool(counts) and _COMPRESSED.issuperset(counts)
    if not sound:
        raise UsageError(
            f"{what} has 'counts' that are no run lengths: write a list of whole numbers, or what "
            "pycocotools.mask.encode returns"
        )


def _is_points(polygon: Any) -> bool:
    try:
        return isinstance(polygon, list) and math.isfinite(sum(polygon))
    except TypeError:
        return False
