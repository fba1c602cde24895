"""What is written of where blocks look: ``NAME_attention_BLOCK.png`` and the like."""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dnl_d2.files import write_bytes, write_text
from dnl_d2.prediction.attention import AttentionMaps, Pixel
from dnl_d2.prediction.pixels import Point, points_of
from dnl_d2.prediction.sources import ATTENTION, Source
from dnl_d2.prediction.writing import make_folder, write_frames, write_picture
from dnl_d2.visualization import draw_rows, mark

_WIDTH = 3.0  # of a picture in the figure, in inches of 110 pixels


def write_attention(
    folder: str,
    name: str,
    seen: AttentionMaps,
    blocks: Sequence[str],
    points: Sequence[Point],
    *,
    npz: bool = False,
) -> None:
    """Writes figures and pictures of a few blocks' maps for a few pixels.

    ``NAME_attention_BLOCK.png`` has a row for each pixel: the picture, and over it each term's map.
    ``NAME_attention_BLOCK_TERM_ROW-COLUMN.png`` is a single map over the picture, without the
    pixel where all pixels share it. ``NAME_attention.json`` says which pixels were taken.

    Args:
        folder: gets them, and what ``name`` has of subfolders.
        name: see :class:`~dnl_d2.prediction.sources.Source`.
        seen: the maps of the picture.
        blocks: their names.
        points: the pixels.
        npz: also write the weights: ``NAME_attention_BLOCK.npz``, in which arrays are named as
            the single pictures are, ``TERM_ROW-COLUMN``.

    Raises:
        UsageError: a pixel is outside the picture.
        WriteError: a file cannot be written.
    """
    path = os.path.join(folder, name + ATTENTION)
    for point in points:
        seen.check_pixel(point.pixel)
    views = {block: _views(seen, block, points) for block in blocks}
    make_folder(os.path.dirname(path))
    for block in blocks:
        _write_figure(f"{path}_{block}.png", seen, block, points)
        weights: dict[str, Any] = {}
        for view, (term, pixel) in views[block].items():
            drawn = seen.overlay(block, term, pixel)
            picture = drawn if pixel is None else mark(drawn, pixel)
            write_picture(f"{path}_{block}_{view}.png", Image.fromarray(picture))
            weights[view] = seen.map(block, term, pixel)
        if npz:
            content = io.BytesIO()
            np.savez_compressed(content, **weights)
            write_bytes(f"{path}_{block}.npz", content.getvalue())
    _write_summary(path, seen.image, points, {block: seen.blocks[block] for block in blocks})


def write_attention_video(
    folder: str,
    source: Source,
    frames: Iterable[AttentionMaps],
    *,
    block: str,
    term: str,
    point: Point | None = None,
) -> Point:
    """Writes ``NAME_attention_BLOCK_TERM.mp4``: one map of every frame over it.

    Args:
        folder, source, block, term: as for pictures.
        frames: the maps of one frame after the other.
        point: the pixel, the same in every frame; None for :func:`points_of` the first frame.

    Returns:
        The pixel.

    Raises:
        UsageError: OpenCV is missing or cannot write the format; a frame cannot be read; or the
            pixel is outside the picture.
        WriteError: a file cannot be written.
    """
    path = os.path.join(folder, source.name + ATTENTION)
    make_folder(os.path.dirname(path))
    taken: list[tuple[Point, np.ndarray]] = []

    def drawn() -> Iterator[np.ndarray]:
        for seen in frames:
            if not taken:
                taken.append((point or points_of(seen.image, seen.prediction)[0], seen.image))
            pixel = taken[0][0].pixel
            picture = seen.overlay(block, term, pixel)
            yield mark(picture, pixel) if seen.needs_pixel(block, term) else picture

    write_frames(f"{path}_{block}_{term}.mp4", source, drawn())
    chosen, image = taken[0]
    _write_summary(path, image, [chosen], {block: [term]})
    return chosen


def _views(
    seen: AttentionMaps, block: str, points: Sequence[Point]
) -> dict[str, tuple[str, Pixel | None]]:
    """Term and pixel of every map of a block, by what names of files end in."""
    views: dict[str, tuple[str, Pixel | None]] = {}
    for term in seen.blocks[block]:
        if not seen.needs_pixel(block, term):
            views[term] = (term, None)
            continue
        for point in points:
            views[f"{term}_{point.row}-{point.column}"] = (term, point.pixel)
    return views


def _write_figure(path: str, seen: AttentionMaps, block: str, points: Sequence[Point]) -> None:
    terms = seen.blocks[block]
    titles = {term: term for term in terms}
    if "whitened" in terms:
        titles |= {"pairwise": "pairwise, raw", "whitened": "pairwise, whitened"}
    by_pixel = any(seen.needs_pixel(block, term) for term in terms)
    asked: list[Pixel | None] = [point.pixel for point in points] if by_pixel else [None]
    rows, captions = [], []
    for pixel in asked:
        drawn = {titles[term]: seen.overlay(block, term, pixel) for term in terms}
        rows.append({"picture": seen.image, **drawn})
        captions.append({titles[term]: _peak(seen.map(block, term, pixel)) for term in terms})
    labels = [str(point) for point in points] if by_pixel else []
    draw_rows(
        path, rows, queries=asked, labels=labels, captions=captions, title=block, width=_WIDTH
    )


def _peak(weights: np.ndarray) -> str:
    """How strong a map is, which its colours do not tell: they go up to its own largest weight."""
    largest, mean = float(weights.max()), float(weights.mean())
    said = f"largest weight {largest:.2g}"
    if mean <= 0 or weights.min() < 0:
        return said
    times = largest / mean
    return f"{said}, {times:.{0 if times >= 10 else 1}f} times the mean"


def _write_summary(
    path: str, image: np.ndarray, points: Sequence[Point], blocks: dict[str, Sequence[str]]
) -> None:
    said = {
        "height": image.shape[0],
        "width": image.shape[1],
        "pixels": [{"row": p.row, "column": p.column, "predicted": p.name} for p in points],
        "blocks": blocks,
    }
    write_text(f"{path}.json", json.dumps(said, indent=2) + "\n")
