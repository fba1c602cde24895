"""Pictures and labels that both models get."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def picture(height: int, width: int, *, seed: int = 0) -> Tensor:
    """``(3, height, width)`` uint8: smooth shading, objects with edges, sensor noise."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.normal(size=(1, 3, 4, 5)))
    image = F.interpolate(coarse, (height, width), mode="bicubic")[0].numpy() * 40 + 120
    rows, columns = np.mgrid[:height, :width]
    for _ in range(6):
        y, x = random.uniform(0, height), random.uniform(0, width)
        radius = random.uniform(0.1, 0.4) * min(height, width)
        distance = np.hypot(rows - y, columns - x)
        if random.random() < 0.5:
            distance = np.maximum(abs(rows - y), abs(columns - x))
        image = np.where(distance < radius, random.uniform(0, 255, (3, 1, 1)), image)
    image = image + random.normal(size=image.shape) * 6
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def label_map(height: int, width: int, num_classes: int, *, seed: int = 0) -> Tensor:
    """``(height, width)`` classes in patches, with a border of 255 between them."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(num_classes, (1, 1, 5, 7), generator=generator).float()
    labels = F.interpolate(patches, (height, width))[0, 0].long()
    labels[::9] = labels[:, ::11] = 255
    return labels
