"""Pictures to prepare: those of a config's datasets or, where these are missing, generated ones."""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from PIL import Image

from dnl_d2.errors import UsageError

_CELLS = 12  # that the coarsest pattern has across a picture


def spread(names: Sequence[str], count: int) -> list[dict]:
    """``count`` records of registered datasets, or as many as there are, evenly spread.

    Raises:
        UsageError: a dataset is not registered or not there.
    """
    try:
        records = [record for name in names for record in DatasetCatalog.get(name)]
    except KeyError as error:
        raise UsageError(" ".join(str(error.args[0]).split())) from error
    if not records:
        raise UsageError("the config names no dataset to train on")
    places = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    return [records[place] for place in places]


def generated(folder: str, count: int, size: tuple[int, int], num_classes: int) -> list[dict]:
    """Writes pictures as hard to compress as photographs, with label maps, as PNG files.

    Args:
        folder: where to.
        count: how many.
        size: (height, width) in pixels.
        num_classes: labels are 0 to ``num_classes`` - 1, and 255 for a band at the bottom.
    """
    records = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image, label = _street(rng, size, num_classes)
        paths = [os.path.join(folder, f"{number}{end}.png") for end in ("", "_label")]
        for path, pixels in zip(paths, (image, label), strict=True):
            Image.fromarray(pixels).save(path)
        height, width = size
        records.append(
            {"file_name": paths[0], "sem_seg_file_name": paths[1], "height": height, "width": width}
        )
    return records


def _street(
    rng: np.random.Generator, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Areas of a colour each, with detail that halves with its size, and a sensor's grain."""
    heights = np.stack([_pattern(rng, size, 3) for _ in range(min(num_classes, 8))])
    area = heights.argmax(0)
    label = rng.permutation(num_classes)[area].astype(np.uint8)
    label[-size[0] // 12 :] = 255
    light = rng.uniform(40, 200, (len(heights), 3))[area] + 60 * _pattern(rng, size, 7)[..., None]
    image = light + 1.4 * rng.standard_normal(light.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8), label


def _pattern(rng: np.random.Generator, size: tuple[int, int], octaves: int) -> np.ndarray:
    """(height, width) smooth noise, each octave twice as fine as the last and half as strong."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        cells = _CELLS * 2**octave
        grid = rng.standard_normal((max(2, cells * height // width), cells), np.float32)
        total += 0.5**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return total
