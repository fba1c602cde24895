"""A contact sheet: images with their labels laid over them, and what the colours mean."""

import colorsys
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.utils import draw_segmentation_masks

from dnl_d2.data.images import read_image
from dnl_d2.data.labels import read_label
from dnl_d2.errors import UsageError
from dnl_d2.files import renamed_when_whole
from dnl_d2.validation.labelled_sets import LabelledSet
from dnl_d2.validation.scan import Pair

_SIDE = 360  # pixels of a picture's longer side
_WRONG = (255, 0, 255)
_VOID = -1
_OPAQUE = 0.55


def class_colors(count: int) -> list[Sequence[int]]:
    """Colours that differ in hue from one class to the next, black first."""
    colors: list[Sequence[int]] = [(0, 0, 0)]
    for number in range(1, count):
        hue = number * 0.618034 % 1  # the golden section: no two close ones in a row
        bright = (1.0, 0.75, 0.55)[number % 3]
        colors.append(tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, bright)))
    return colors[:count]


def draw_contact_sheet(
    path: str,
    sets: Sequence[LabelledSet],
    *,
    classes: Sequence[str],
    count: int = 12,
) -> int:
    """Writes a PNG of image and overlay side by side, evenly spaced over the sets.

    Ignored pixels keep the image's colours; values that are no class are magenta. Files that
    cannot be drawn are passed over.

    Args:
        path: file to write.
        sets: what to draw.
        classes: names of the classes.
        count: pictures per set at most.

    Returns:
        How many pictures are on it; the file is not written for none.

    Raises:
        UsageError: the file cannot be written.
    """
    panels: list[tuple[str, np.ndarray]] = []
    shown: dict[int, Sequence[int]] = {}
    for source in sets:
        known = source.colors or class_colors(len(classes))
        colors = [*known[: len(classes)], _WRONG]
        step = max(len(source.pairs) / count, 1)
        for index in range(min(count, len(source.pairs))):
            drawn = _draw(source.pairs[int(index * step)], source, colors, len(classes))
            if drawn is not None:
                panels.append((f"{source.name}: {drawn[0]}", drawn[1]))
                shown |= {value: colors[value] for value in drawn[2]}
    if panels:
        names = [*classes, "no class"]
        legend = {f"{v} {names[v]}": color for v, color in sorted(shown.items())}
        _save(path, panels, legend)
    return len(panels)


def _draw(
    pair: Pair, source: LabelledSet, colors: Sequence, num_classes: int
) -> tuple[str, np.ndarray, list[int]] | None:
    """Title, ``(H, W, 3)`` picture and the classes in it, ``num_classes`` for "no class"."""
    try:
        image = read_image(pair[0], "RGB")
        label = read_label(pair[1]) if pair[1] is not None else None
    except UsageError:
        return None
    if label is None or label.shape != image.shape[:2]:
        return None
    height, width = label.shape
    scale = min(_SIDE / max(height, width), 1)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    label = np.asarray(
        Image.fromarray(label.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    )
    known = (label >= 0) & (label < num_classes)
    void = (label == source.ignore_label) | ((label == 255) & ~known)
    shown = np.where(void, _VOID, np.where(known, label, num_classes))
    classes = [value for value in np.unique(shown).tolist() if value != _VOID]
    overlay = torch.from_numpy(image.copy()).permute(2, 0, 1)
    if classes:
        masks = torch.from_numpy(shown) == torch.tensor(classes)[:, None, None]
        drawn = [tuple(colors[value]) for value in classes]
        overlay = draw_segmentation_masks(overlay, masks, alpha=_OPAQUE, colors=drawn)
    both = np.concatenate([image, overlay.permute(1, 2, 0)], axis=1)
    return os.path.basename(pair[0]), both, classes


def _save(path: str, panels: Sequence[tuple[str, np.ndarray]], legend: dict) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    lines = -(-len(legend) // (3 * columns))
    height = 2.3 * rows + 0.25 * lines + 0.2
    figure = Figure(figsize=(5.2 * columns, height))
    FigureCanvasAgg(figure)
    for number, (title, picture) in enumerate(panels):
        axis = figure.add_subplot(rows, columns, number + 1)
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title[-60:].replace("$", r"\$"), fontsize=7)
        axis.set_axis_off()
    patches = [
        Patch(
            facecolor=tuple(np.array(color) / 255),
            edgecolor="black",
            label=name.replace("$", r"\$"),
        )
        for name, color in legend.items()
    ]
    figure.legend(handles=patches, loc="lower center", ncols=3 * columns, fontsize=7)
    figure.tight_layout(rect=(0, (0.25 * lines + 0.1) / height, 1, 1))
    with renamed_when_whole(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
