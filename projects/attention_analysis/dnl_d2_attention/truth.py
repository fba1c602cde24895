"""What the ground truth says of a feature map: whose region a cell is, and where regions meet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.data.detection_utils import annotations_to_instances
from torch import Tensor

from dnl_d2.data import read_label

NONE = -1  # of cells that belong to no region

# From the size (height, width) of a map to regions of its cells.
Regions = Callable[[tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Frame:
    """Sizes (height, width) of a picture on its way to a feature map.

    Attributes:
        picture: as it was labelled.
        resized: as the model saw it.
        padded: with the zeros below and on the right that the backbone needs.
    """

    picture: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


def of_labels(record: dict[str, Any], metadata: Metadata) -> np.ndarray | None:
    """``(H, W)`` regions of a record by class, or by object where only objects are known.

    A pixel of several objects is of the smallest.

    Args:
        record: of a dataset of Detectron2's.
        metadata: of the dataset.

    Returns:
        Numbers of regions, ``NONE`` where a pixel is of none; None without ground truth.

    Raises:
        UsageError: a label cannot be read.
    """
    if "sem_seg_file_name" in record:
        label = read_label(record["sem_seg_file_name"]).astype(np.int64)
        ignored, classes = metadata.get("ignore_label", 255), metadata.get("stuff_classes", None)
        outside = label >= len(classes) if classes else label == 255
        return np.where((label == ignored) | outside, NONE, label)
    objects = [a for a in record.get("annotations", ()) if "segmentation" in a and not _crowd(a)]
    if not objects:
        return None
    size = (record["height"], record["width"])
    masks = annotations_to_instances(objects, size, mask_format="bitmask").gt_masks.tensor.numpy()
    regions = np.full(size, NONE, np.int64)
    for number in np.argsort([-mask.sum() for mask in masks]):
        regions[masks[number]] = number
    return regions


def _crowd(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def at_cells(regions: np.ndarray, frame: Frame, size: tuple[int, int]) -> Tensor:
    """The regions of the pixels at the centres of a map's cells.

    Args:
        regions: ``(H, W)`` of the picture.
        frame: how the picture came to the map.
        size: (height, width) of the map, whose cells divide the padded picture evenly.

    Returns:
        ``(h * w,)``; ``NONE`` of cells that lie outside of the picture.
    """
    axes = []
    for cells, padded, resized, length in zip(
        size, frame.padded, frame.resized, frame.picture, strict=True
    ):
        centre = (np.arange(cells) + 0.5) * padded / cells
        pixel = np.floor(centre * length / resized).astype(np.int64)
        axes.append(np.where(centre < resized, np.minimum(pixel, length - 1), -1))
    rows, columns = axes
    found = regions[np.ix_(rows, columns)]
    found[rows < 0] = NONE
    found[:, columns < 0] = NONE
    return torch.from_numpy(found).flatten()


def boundaries(regions: Tensor, size: tuple[int, int]) -> Tensor:
    """Which cells have a neighbour, one of four, of another region: ``(h * w,)`` booleans.

    Cells of no region are not compared.
    """
    cells = regions.view(size)
    found = torch.zeros(size, dtype=torch.bool)
    for one, other in ((cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])):
        differs = (one != other) & (one != NONE) & (other != NONE)
        if one.shape[0] < size[0]:
            found[1:] |= differs
            found[:-1] |= differs
        else:
            found[:, 1:] |= differs
            found[:, :-1] |= differs
    return found.flatten()
