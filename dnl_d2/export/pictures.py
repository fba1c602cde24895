"""Pictures that graphs are traced with and checked on: drawn, the same ones each time."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_DISCS = 12


def picture(size: Sequence[int], seed: int = 0) -> Tensor:
    """Discs of many sizes and colours on a noisy ground: ``(3, H, W)`` uint8."""
    rng = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    image = np.full((3, height, width), rng.integers(60, 200, (3, 1, 1)), dtype=np.float64)
    for _ in range(_DISCS):
        radius = min(size) * rng.uniform(0.03, 0.25)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        image[:, inside] = rng.integers(0, 256, (3, 1))
    image += rng.normal(0, 12, image.shape)
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))
