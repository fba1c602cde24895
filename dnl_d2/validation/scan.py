"""Facts about one image and its label, and the same for many pairs in parallel."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dnl_d2.data.images import is_dim, is_turned, load_picture
from dnl_d2.data.labels import read_label
from dnl_d2.errors import UsageError

_KEPT = 4096  # distinct values kept of one label, the most frequent ones
_SMEARED = 8  # so many values that stand alone on half of their pixels are no classes

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class ImageFacts:
    """What an image file holds."""

    error: str = ""
    size: tuple[int, int] = (0, 0)  # height, width
    mode: str = ""
    digest: bytes = b""  # of the decoded pixels: equal for pictures that were saved anew
    constant: bool = False
    turned: bool = False  # by its EXIF orientation
    dim: bool = False  # nearly black once it is scaled to 8 bits


@dataclass(frozen=True)
class LabelFacts:
    """What a label file holds."""

    error: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    colored: bool = False  # values are then 0xRRGGBB
    values: dict[int, int] = field(default_factory=dict)  # value -> pixels
    smeared: bool = False  # by a lossy format, or smoothed at the borders
    palette: dict[int, int] = field(default_factory=dict)  # value -> its colour, 0xRRGGBB


@dataclass(frozen=True)
class PairFacts:
    """An image, its label if it has one, and their paths."""

    pair: Pair
    image: ImageFacts
    label: LabelFacts | None


def scan(pairs: Sequence[Pair], *, workers: int | None) -> Iterator[PairFacts]:
    """Reads all pairs in parallel and yields their facts in order, holding few at a time.

    Args:
        pairs: what to read.
        workers: threads; None for one per core up to 16: decoding releases Python's lock, counting
            holds it.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for start in range(0, len(pairs), 16 * workers):
                yield from pool.map(scan_pair, pairs[start : start + 16 * workers])
        except BaseException:  # Ctrl-C: do not read the rest of the batch
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def scan_pair(pair: Pair) -> PairFacts:
    """Reads one pair; a broken file is a fact like any other."""
    image, label = pair
    return PairFacts(
        pair,
        _attempt(_image_facts, image, ImageFacts),
        None if label is None else _attempt(_label_facts, label, LabelFacts),
    )


def _attempt(read: Callable[[str], Any], path: str, facts: type) -> Any:
    try:
        return read(path)
    except UsageError as error:
        return facts(error=str(error))
    except Exception as error:  # decoders raise what they like, and the other files are waiting
        return facts(error=f"{path} cannot be read ({type(error).__name__}: {error})")


def _image_facts(path: str) -> ImageFacts:
    picture = load_picture(path)
    pixels = np.asarray(picture)
    extrema = picture.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    digest = hashlib.blake2b(f"{picture.mode} {picture.size}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return ImageFacts(
        size=(picture.height, picture.width),
        mode=picture.mode,
        digest=digest.digest(),
        constant=all(low == high for low, high in bands),
        turned=is_turned(picture),
        dim=is_dim(picture),
    )


def _label_facts(path: str) -> LabelFacts:
    picture = load_picture(path, kind="label")
    try:
        array, colored = read_label(path), False
    except UsageError:  # it is a picture, so it holds colours
        array, colored = _packed(picture), True
    values, smeared = _values(array)
    return LabelFacts(
        size=array.shape[:2],
        mode=picture.mode,
        colored=colored,
        values=dict(values.most_common(_KEPT)),
        smeared=smeared,
        palette={} if colored else palette_colors(picture, values),
    )


def palette_colors(picture: Image.Image, values: Iterable[int]) -> dict[int, int]:
    """The colours (0xRRGGBB) that a palette picture shows values in; empty for other pictures.

    Args:
        picture: its header is enough.
        values: which of them.
    """
    if picture.mode != "P" or picture.palette is None:
        return {}
    mode, data = picture.palette.getdata()
    if mode not in ("RGB", "RGBA"):
        return {}
    size = len(mode)
    entries = {value: data[size * value : size * value + 3] for value in values}
    return {value: int.from_bytes(rgb, "big") for value, rgb in entries.items() if len(rgb) == 3}


def _packed(picture: Image.Image) -> np.ndarray:
    rgb = np.asarray(picture.convert("RGB")).astype(np.int32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _values(array: np.ndarray) -> tuple[Counter, bool]:
    """Pixels per value, and whether many values hardly ever touch another pixel of their own.

    Classes form areas. Lossy compression and smoothing fill the borders with values in between.
    """
    totals, alone = count_values(array), count_values(array[_alone(array)])
    scattered = sum(2 * pixels >= totals[value] for value, pixels in alone.items())
    return totals, scattered >= _SMEARED


def count_values(array: np.ndarray) -> Counter[int]:
    """Pixels per value of a label map."""
    if array.dtype == np.uint8:
        counts = np.bincount(array.ravel(), minlength=256)
        found = counts.nonzero()[0]
        return Counter(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))
    found, counts = np.unique(array, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _alone(array: np.ndarray) -> np.ndarray:
    """Pixels that differ from all of their up to four neighbours."""
    alone = np.ones(array.shape, bool)
    for values, found in ((array, alone), (array.T, alone.T)):  # down the rows, along them
        differs = values[:-1] != values[1:]
        found[:-1] &= differs
        found[1:] &= differs
    return alone
