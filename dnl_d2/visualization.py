"""Attention maps of a trained segmentation model, and a picture to compare models by."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.modeling import SemanticSegmentor
from detectron2.utils.colormap import colormap
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.modeling.batches import padded_for
from dnl_d2.modeling.heads import SegmentationHead


@torch.no_grad()
def head_attention(
    model: SemanticSegmentor, image: Tensor, queries: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    """Attention maps of the context blocks in a model's segmentation head.

    Args:
        model: a segmentation model, in evaluation mode.
        image: ``(3, H, W)`` as the model's mapper gives it.
        queries: (row, column) pixels of the image.

    Returns:
        ``"pairwise"`` ``(Q, H', W')`` and ``"unary"`` ``(H', W')`` at feature resolution, whichever
        the block has. Of an :class:`~dnl_d2.modeling.AsymmetricHead` APNB's as ``"pairwise"`` and
        AFNB's as ``"fusion"``.

    Raises:
        UsageError: the model has no segmentation head of this library, or one without a context
            block, or a query is outside the image.
    """
    head = getattr(model, "sem_seg_head", None)
    if not isinstance(head, SegmentationHead):
        raise UsageError(
            f"{type(model).__name__} has no segmentation head of this library: call attention(x, "
            "queries) of a block itself, such as model.backbone.bottom_up.res4[-1].context"
        )
    height, width = image.shape[-2:]
    for row, column in queries:
        if not (0 <= row < height and 0 <= column < width):
            raise UsageError(f"query {(row, column)} is outside the {height}x{width} image")
    normalised = (image.to(model.device) - model.pixel_mean) / model.pixel_std
    batch = padded_for(model.backbone, normalised[None])
    features = model.backbone(batch)
    x = features[head.in_features[-1]]
    # Pixels to cells by the share of the padded size, which holds for any stride.
    cells = [
        (row * x.shape[2] // batch.shape[2], column * x.shape[3] // batch.shape[3])
        for row, column in queries
    ]
    return {name: maps[0].cpu() for name, maps in head.attention(features, cells).items()}


def color_label(label: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """``(H, W)`` class ids -> ``(H, W, 3)`` uint8 in the dataset's colours; others black."""
    table = np.zeros((max(256, len(colors)), 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table[np.clip(label, 0, len(table) - 1)]


def class_colors(count: int, known: Sequence[Sequence[int]] | None = None) -> list[Sequence[int]]:
    """An RGB triple for each of ``count`` classes: the known ones, then Detectron2's."""
    told, others = list(known or ()), colormap(rgb=True).astype(int).tolist()
    return [told[n] if n < len(told) else others[n % len(others)] for n in range(count)]


def draw_rows(
    path: str,
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    queries: Sequence[tuple[int, int]],
    legend: Mapping[str, Sequence[int]],
) -> None:
    """Writes a PNG with one row of panels per example.

    Args:
        path: file to write.
        rows: panels by title: ``(H, W, 3)`` uint8 pictures, or ``(H', W')`` attention maps.
        queries: for each row the (row, column) pixel to mark on picture panels.
        legend: class name to colour.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    titles = list(rows[0])
    figure = Figure(figsize=(2.1 * len(titles), 2.1 * len(rows) + 0.5))
    FigureCanvasAgg(figure)  # a caller's backend stays as it is
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, (panels, query) in enumerate(zip(rows, queries, strict=True)):
        size = next(iter(panels.values())).shape[:2]
        for (title, panel), axis in zip(panels.items(), axes[number], strict=True):
            extent = (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)
            axis.imshow(panel, cmap="magma", interpolation="nearest", extent=extent)
            axis.plot(query[1], query[0], "+", color="white", ms=9, mew=3)
            axis.plot(query[1], query[0], "+", color="black", ms=8, mew=1)
            axis.set_axis_off()
            if number == 0:
                axis.set_title(title, fontsize=9)
    patches = [
        Patch(facecolor=tuple(np.array(c) / 255), edgecolor="black", label=name)
        for name, c in legend.items()
    ]
    figure.legend(handles=patches, loc="lower center", ncols=len(patches), fontsize=8)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
