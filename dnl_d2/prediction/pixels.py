"""Which pixels to ask where they look, if nobody says."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dnl_d2.prediction.results import Detections, Segmentation

_GRID = 160  # cells along the longer side, in which the middle of a region is looked for


@dataclass(frozen=True)
class Point:
    """A pixel of a picture.

    Args:
        row, column: of the pixel.
        name: what is predicted there; "" if that is not known.
    """

    row: int
    column: int
    name: str = ""

    @property
    def pixel(self) -> tuple[int, int]:
        return self.row, self.column

    def __str__(self) -> str:
        return f"{self.row},{self.column}" + (f" ({self.name})" if self.name else "")


def points_of(
    image: np.ndarray, prediction: Segmentation | Detections | None, count: int = 3
) -> list[Point]:
    """Pixels in the middle of what is predicted to be largest.

    Args:
        image: ``(H, W, 3)``.
        prediction: of the picture.
        count: how many at most.

    Returns:
        A pixel of each of the largest classes, or objects; without any the middle of the picture.
    """
    regions: Iterator[tuple[str, np.ndarray]] = iter(())
    if isinstance(prediction, Segmentation):
        regions = _classes(prediction, count)
    elif isinstance(prediction, Detections):
        regions = _objects(prediction, count)
    points = [Point(*middle(region), name) for name, region in regions]
    return points or [Point(image.shape[0] // 2, image.shape[1] // 2)]


def _classes(found: Segmentation, count: int) -> Iterator[tuple[str, np.ndarray]]:
    sizes = np.bincount(found.labels.ravel())
    for number in np.argsort(-sizes, kind="stable")[:count]:
        if sizes[number]:
            yield found.classes[number], found.labels == number


def _objects(found: Detections, count: int) -> Iterator[tuple[str, np.ndarray]]:
    objects = found.instances
    for number in objects.pred_boxes.area().argsort(descending=True, stable=True)[:count].tolist():
        name = found.classes[int(objects.pred_classes[number])]
        if objects.has("pred_masks") and objects.pred_masks[number].any():
            yield name, objects.pred_masks[number].numpy()
            continue
        inside = np.zeros(found.image.shape[:2], dtype=bool)
        left, top, right, bottom = objects.pred_boxes.tensor[number].int().tolist()
        rows = slice(min(top, len(inside) - 1), max(bottom, top + 1))
        inside[rows, min(left, inside.shape[1] - 1) : max(right, left + 1)] = True
        yield name, inside


def middle(region: np.ndarray) -> tuple[int, int]:
    """(row, column) of a pixel of a region that is as far from its border as any, nearly.

    Layers are taken off the region until nothing is left; the pixel is one of the last layer.
    """
    step = max(-(-max(region.shape) // _GRID), 1)
    rest = region[::step, ::step]
    if not rest.any():  # finer than the grid
        step, rest = 1, region
    while rest.any():
        last, padded = rest, np.pad(rest, 1)
        rest = rest & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    places = np.argwhere(last)
    nearest = ((places - places.mean(0)) ** 2).sum(1).argmin()
    row, column = (places[nearest] * step).tolist()
    return row, column
