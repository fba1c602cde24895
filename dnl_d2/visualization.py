"""Pictures of label maps and of attention maps, and figures of them in rows."""

import functools
import io
from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.utils.colormap import colormap
from PIL import Image, ImageDraw

from dnl_d2.files import write_bytes

_COLORS = "turbo"  # matplotlib's: from dark violet over blue, green and yellow to red
_OPACITY = 0.6
_DPI = 110


def overlay(
    image: np.ndarray, weights: np.ndarray, *, extent: tuple[float, float] | None = None
) -> np.ndarray:
    """A map of weights as colours over a picture, resampled to its size.

    Colours go from 0, dark violet, to the largest weight, red; or, where there are negative
    weights, from the smallest one.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        weights: ``(H', W')``.
        extent: how many rows and columns of ``weights`` the picture covers, where that is no whole
            number; by default all.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    height, width = image.shape[:2]
    rows, columns = extent or weights.shape
    low = min(float(weights.min()), 0.0)
    scaled = (weights - low) / max(float(weights.max()) - low, 1e-30)
    resampled = Image.fromarray(np.asarray(scaled, np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR, box=(0, 0, columns, rows)
    )
    levels = np.clip(np.asarray(resampled) * 255 + 0.5, 0, 255).astype(np.uint8)
    colored = Image.fromarray(levels)
    colored.putpalette(_palette())
    return np.asarray(Image.blend(Image.fromarray(image), colored.convert("RGB"), _OPACITY))


def mark(image: np.ndarray, pixel: Sequence[int]) -> np.ndarray:
    """A copy of an ``(H, W, 3)`` picture with a cross at the pixel (row, column)."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    row, column = pixel
    line = max(min(image.shape[:2]) // 150, 1)
    for color, arm, width in (("black", 7 * line, 3 * line), ("white", 6 * line, line)):
        draw.line((column - arm, row, column + arm, row), fill=color, width=width)
        draw.line((column, row - arm, column, row + arm), fill=color, width=width)
    return np.asarray(picture)


@functools.cache
def _palette() -> bytes:
    """256 RGB triples."""
    import matplotlib

    colors = matplotlib.colormaps[_COLORS](np.arange(256), bytes=True)
    return np.asarray(colors)[:, :3].tobytes()


def color_label(label: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """``(H, W)`` class ids -> ``(H, W, 3)`` uint8 in the dataset's colours; others black."""
    table = np.array([*colors, (0, 0, 0)], dtype=np.uint8)
    black = np.intp(len(colors))
    return table[np.where((label >= 0) & (label < black), label, black)]


def class_colors(count: int, known: Sequence[Sequence[int]] | None = None) -> list[Sequence[int]]:
    """An RGB triple for each of ``count`` classes: the known ones, then Detectron2's."""
    told, others = list(known or ()), colormap(rgb=True).astype(int).tolist()
    return [told[n] if n < len(told) else others[n % len(others)] for n in range(count)]


def draw_rows(
    path: str,
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    queries: Sequence[Sequence[int] | None],
    legend: Mapping[str, Sequence[int]] | None = None,
    labels: Sequence[str] = (),
    captions: Sequence[Mapping[str, str]] = (),
    title: str = "",
    width: float = 2.1,
) -> None:
    """Writes a PNG with one row of pictures per example.

    Args:
        path: file to write.
        rows: ``(H, W, 3)`` uint8 pictures by title; the titles of the first row are written.
        queries: for each row the (row, column) pixel to mark, or None.
        legend: class name to colour, below the pictures.
        labels: what to write beside each row.
        captions: for each row what to write below pictures, by their titles.
        title: what to write above them.
        width: of a picture, in inches of 110 pixels.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    titles = list(rows[0])
    sizes = [next(iter(panels.values())).shape[:2] for panels in rows]
    heights = [min(max(width * h / w, 0.5), 3 * width) for h, w in sizes]
    figure = Figure(figsize=(width * len(titles) + 0.3, sum(heights) + 0.2 * len(rows) + 0.4))
    figure.set_layout_engine("constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    FigureCanvasAgg(figure)  # a caller's backend stays as it is
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for number, (panels, query) in enumerate(zip(rows, queries, strict=True)):
        for (heading, panel), axis in zip(panels.items(), axes[number], strict=True):
            height, wide = panel.shape[:2]
            finer = max(int(wide / (2 * _DPI * width)), 1)  # than can be seen
            extent = (-0.5, wide - 0.5, height - 0.5, -0.5)
            axis.imshow(
                Image.fromarray(panel).reduce(finer), interpolation="nearest", extent=extent
            )
            if query is not None:
                axis.plot(query[1], query[0], "+", color="white", ms=9, mew=3)
                axis.plot(query[1], query[0], "+", color="black", ms=8, mew=1)
            axis.set(xticks=(), yticks=())
            axis.spines[:].set_visible(False)
            if number == 0:
                axis.set_title(heading, fontsize=9)
            if captions:
                axis.set_xlabel(captions[number].get(heading, ""), fontsize=8, labelpad=2)
        if labels:
            axes[number][0].set_ylabel(labels[number], fontsize=8)
    patches = [
        Patch(facecolor=tuple(np.array(c) / 255), edgecolor="black", label=name)
        for name, c in (legend or {}).items()
    ]
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, dpi=_DPI, format="png")
    write_bytes(path, content.getvalue())
