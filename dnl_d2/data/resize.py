"""Resizing as the published recipes do it: OpenCV, bilinear, without antialiasing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from dnl_d2.config.keys import PUBLISHED_SCALES
from dnl_d2.data.images import image_tensor
from dnl_d2.data.opencv import cv2, require_opencv
from dnl_d2.errors import UsageError


def fitted_size(size: Sequence[int], limits: Sequence[int]) -> tuple[int, int]:
    """The largest (height, width) of the same aspect ratio that fits (long, short) limits.

    Rounded to whole pixels, halves up, as the public frameworks round; never less than a pixel
    (they fail there). The order of ``limits`` does not matter.
    """
    scale = min(max(limits) / max(size), min(limits) / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def scaled_size(
    size: Sequence[int], base_size: Sequence[int] | None, ratio: float
) -> tuple[int, int]:
    """The (height, width) of a picture of ``size`` at ``ratio``.

    ``ratio`` scales ``base_size`` (cut to whole pixels), which the picture then fits; without a
    base size it scales the picture itself (rounded).
    """
    if base_size:
        return fitted_size(size, [int(side * ratio) for side in base_size])
    return fitted_size(size, [int(side * ratio + 0.5) for side in size])


def check_base_size(base_size: Sequence[int]) -> tuple[int, int]:
    """``base_size`` as (long, short), or a :class:`UsageError`."""
    if len(base_size) != 2 or min(base_size) <= 0:
        raise UsageError(
            f"resize base size {tuple(base_size)} must be (long, short) with both positive"
        )
    return int(max(base_size)), int(min(base_size))


def resized(array: np.ndarray, size: Sequence[int], *, nearest: bool = False) -> np.ndarray:
    """An (H, W[, C]) image or label map at another (height, width).

    Args:
        array: uint8 or float32 to interpolate; any integer type up to int32, or int64 values that
            fit, to take the nearest pixel.
        size: (height, width).
        nearest: take the nearest pixel, as for labels, instead of interpolating.

    Returns:
        The resized array, of the same type and number of axes.
    """
    require_opencv()
    taken = array
    if nearest and array.dtype not in (np.uint8, np.int32):
        taken = array.astype(np.int32)
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    out = cv2.resize(taken, (size[1], size[0]), interpolation=method)
    # OpenCV drops an axis of one channel.
    return out.reshape(*size, *array.shape[2:]).astype(array.dtype, copy=False)


def resized_part(
    array: np.ndarray, size: Sequence[int], rows: slice, columns: slice, *, nearest: bool = False
) -> np.ndarray:
    """``resized(array, size, nearest=nearest)[rows, columns]``, without most of the rest.

    Labels are taken from where OpenCV takes the pixels of their rows and columns. 8-bit images are
    resized down to the last row and column that are wanted: OpenCV then computes the same integers.
    It rounds other types by where they stand in the picture, which is therefore resized whole.

    Args:
        array: as :func:`resized` takes it.
        size: (height, width) of the whole resized array.
        rows: which of its rows, with start and stop.
        columns: which of its columns.
        nearest: take the nearest pixel instead of interpolating.
    """
    require_opencv()
    height, width = array.shape[:2]
    if nearest:
        from_rows = resized(np.arange(height, dtype=np.int32)[:, None], (size[0], 1), nearest=True)
        from_columns = resized(np.arange(width, dtype=np.int32)[None], (1, size[1]), nearest=True)
        return array[from_rows[rows, 0]].take(from_columns[0, columns], axis=1)
    if array.dtype != np.uint8:
        return resized(array, size)[rows, columns]
    below = min(height, math.ceil(rows.stop * height / size[0]) + 2)  # 2: neighbour and rounding
    right = min(width, math.ceil(columns.stop * width / size[1]) + 2)
    out = cv2.resize(array[:below, :right], None, fx=size[1] / width, fy=size[0] / height)
    return out.reshape(*out.shape[:2], *array.shape[2:])[rows, columns]


class ResizeTransform(T.ResizeTransform):
    """detectron2's resize with the pixels of OpenCV, also for labels of any integer type.

    detectron2 resizes with Pillow, which averages when it shrinks a picture. The published models
    were trained and tested without such averaging.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Interpolates an (H, W[, C]) image; ``interp``, a method of Pillow's, is not looked at."""
        return resized(img, (self.new_h, self.new_w))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Takes the nearest pixel of an (H, W) label map."""
        return resized(segmentation, (self.new_h, self.new_w), nearest=True)

    def inverse(self) -> "ResizeTransform":
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w)


class RandomResize(T.Augmentation):
    """Resizes to fit a randomly scaled base size, keeping the aspect ratio.

    With r drawn uniformly from ``ratio_range`` the picture becomes the largest one whose long side
    is at most ``r * long`` and whose short side is at most ``r * short``.
    """

    def __init__(
        self,
        base_size: Sequence[int] | None,
        ratio_range: Sequence[float] = (0.5, 2.0),
        *,
        step: float = 0.0,
    ) -> None:
        """
        Args:
            base_size: (long, short) side in pixels; the order does not matter. None or empty: each
                picture's own size.
            ratio_range: (lowest, highest) r; (1, 1) makes the resize deterministic.
            step: r is one of the lowest, the lowest + step, ... (PaddleSeg); 0 for any r.

        Raises:
            UsageError: a size or ratio is not positive, the range is reversed, the step negative,
                or OpenCV is missing.
        """
        super().__init__()
        require_opencv()
        self.base_size = check_base_size(base_size) if base_size else None
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise UsageError(
                f"resize ratio range {tuple(ratio_range)} must be (low, high), 0 < low <= high"
            )
        if step < 0:
            raise UsageError(f"step {step} of the resize ratio is negative: use 0 for any ratio")
        self.ratio_range = (float(ratio_range[0]), float(ratio_range[1]))
        self.step = float(step)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws r and returns the resize for an (H, W[, C]) image."""
        size = image.shape[:2]
        new_size = scaled_size(size, self.base_size, self._draw())
        return T.NoOpTransform() if new_size == size else ResizeTransform(*size, *new_size)

    def _draw(self) -> float:
        low, high = self.ratio_range
        if not self.step:
            return self._rand_range(low, high)
        steps = int((high - low) / self.step + 1e-6)  # 0.3 / 0.1 is 2.9999...
        return low + self.step * np.random.randint(steps + 1)


class MultiScaleFlip:
    """The pictures of a "ms+flip" test: the stored one at several scales, each also mirrored.

    Args:
        enabled: whether to test so; otherwise it is the stored picture that fits the base size.
        base_size: (long, short) that the scales refer to, as the published results do; None or
            empty: they refer to each picture's own size, as in mmsegmentation 1.x.
        scales: factors.
        flip: whether the mirrored picture counts too.

    Raises:
        UsageError: a value out of its range, or OpenCV is missing.
    """

    @configurable
    def __init__(
        self,
        *,
        enabled: bool = True,
        base_size: Sequence[int] | None = None,
        scales: Sequence[float] = PUBLISHED_SCALES,
        flip: bool = True,
    ) -> None:
        if not len(scales) or not all(scale > 0 for scale in scales):
            raise UsageError(
                f"scales {tuple(scales)} of a multi-scale test must be one or more positive "
                "factors (TEST.AUG.SCALES)"
            )
        if enabled:
            require_opencv()
        self.enabled = enabled
        self.base_size = check_base_size(base_size) if base_size else None
        self.scales = tuple(float(scale) for scale in scales)
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        test = cfg.TEST.AUG
        return {
            "enabled": test.ENABLED,
            "base_size": cfg.INPUT.RESIZE.BASE_SIZE,
            "scales": test.SCALES,
            "flip": test.FLIP,
        }

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """The (H, W, C) image at every scale, each made from the original."""
        size = image.shape[:2]
        return [resized(image, scaled_size(size, self.base_size, s)) for s in self.scales]

    def model_inputs(self, image: np.ndarray) -> dict[str, Any]:
        """What a segmentor reads of an (H, W, C) image.

        Returns:
            If enabled "images", one ``(C, H', W')`` tensor per scale, and "flip", whether their
            mirror images are to be predicted too; otherwise "image".
        """
        if self.enabled:
            return {"images": [image_tensor(view) for view in self(image)], "flip": self.flip}
        size = scaled_size(image.shape[:2], self.base_size, 1.0)
        return {"image": image_tensor(image if size == image.shape[:2] else resized(image, size))}
