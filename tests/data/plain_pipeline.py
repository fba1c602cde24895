"""The training pipeline step by step on whole pictures: what the mapper must equal bit for bit."""

import cv2
import numpy as np
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image


def mapped(
    record: dict,
    *,
    base_size: tuple[int, int] | None,
    crop_size: tuple[int, int],
    limit: float,
    ignore_label: int,
    image_format: str = "RGB",
) -> tuple[np.ndarray, np.ndarray]:
    """(3, H, W) uint8 image and (H, W) int64 label; draws as the mapper does, seeded outside."""
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))
    image = np.ascontiguousarray(image if image_format == "RGB" else image[..., ::-1])
    label = np.array(Image.open(record["sem_seg_file_name"]))
    label[(label == ignore_label) | (label == 255)] = 255
    image, label = _resized(image, label, base_size)
    window = _window(label, crop_size, limit)
    image, label = image[window], label[window]
    if np.random.uniform(0, 1) < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image = ColorAugSSDTransform(image_format).apply_image(np.ascontiguousarray(image))
    return image.transpose(2, 0, 1), label.astype(np.int64)


def _resized(image, label, base_size):
    ratio = np.random.uniform(0.5, 2.0)
    height, width = label.shape
    if base_size:
        limits = [int(side * ratio) for side in base_size]
    else:
        limits = [int(side * ratio + 0.5) for side in (height, width)]
    scale = min(max(limits) / max(height, width), min(limits) / min(height, width))
    size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), label


def _window(label, crop_size, limit):
    height, width = (min(pair) for pair in zip(crop_size, label.shape, strict=True))
    for _ in range(11):
        top = np.random.randint(label.shape[0] - height + 1)
        left = np.random.randint(label.shape[1] - width + 1)
        window = slice(top, top + height), slice(left, left + width)
        values, counts = np.unique(label[window], return_counts=True)
        counts = counts[values != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < limit:
            break
    return window
