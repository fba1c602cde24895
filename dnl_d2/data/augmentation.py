"""Augmentation of the published semantic segmentation recipes, as detectron2 augmentations."""

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image

from dnl_d2.errors import UsageError


class LabelSafeResizeTransform(T.ResizeTransform):
    """detectron2's resize, with labels of any integer type taken from the nearest pixel.

    The parent sends labels that are not uint8 through an interpolation that rejects integers.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Maps an (H, W) label map to (new_h, new_w)."""
        if segmentation.dtype == np.uint8:
            return super().apply_segmentation(segmentation)
        picture = Image.fromarray(segmentation.astype(np.int32))
        resized = picture.resize((self.new_w, self.new_h), Image.NEAREST)
        return np.asarray(resized).astype(segmentation.dtype)


class RandomResize(T.Augmentation):
    """Resizes to fit a randomly scaled base size, keeping the aspect ratio.

    With r drawn uniformly from ``ratio_range`` the picture becomes the largest one whose long side
    is at most ``r * long`` and whose short side is at most ``r * short``.
    """

    def __init__(self, base_size: Sequence[int], ratio_range: Sequence[float] = (0.5, 2.0)) -> None:
        """
        Args:
            base_size: (long, short) side in pixels; the order does not matter.
            ratio_range: (lowest, highest) r; (1, 1) makes the resize deterministic.

        Raises:
            UsageError: a size or ratio is not positive, or the range is reversed.
        """
        super().__init__()
        if len(base_size) != 2 or min(base_size) <= 0:
            raise UsageError(
                f"resize base size {tuple(base_size)} must be (long, short) with both positive"
            )
        if len(ratio_range) != 2 or not 0 < ratio_range[0] <= ratio_range[1]:
            raise UsageError(
                f"resize ratio range {tuple(ratio_range)} must be (low, high), 0 < low <= high"
            )
        self.base_size = (int(max(base_size)), int(min(base_size)))
        self.ratio_range = (float(ratio_range[0]), float(ratio_range[1]))

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws r and returns the resize for an (H, W[, C]) image."""
        height, width = image.shape[:2]
        ratio = self._rand_range(*self.ratio_range)
        scale = ratio * min(
            self.base_size[0] / max(height, width), self.base_size[1] / min(height, width)
        )
        new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
        if (new_height, new_width) == (height, width):
            return T.NoOpTransform()
        return LabelSafeResizeTransform(height, width, new_height, new_width)


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue; labels stay as they are.

    A thin name for detectron2's SSD transform, which draws from Python's ``random``: seeded by
    ``seed_all_rng`` and anew in every loader worker.
    """

    def __init__(
        self,
        image_format: str = "RGB",
        *,
        brightness: int = 32,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: int = 18,
    ) -> None:
        """
        Args:
            image_format: channel order, "RGB" or "BGR".
            brightness: largest shift of the grey values.
            contrast: range of the factor on all channels.
            saturation: range of the factor on the saturation.
            hue: largest shift of the hue, of 180.

        Raises:
            UsageError: another image format.
        """
        super().__init__()
        if image_format not in ("RGB", "BGR"):
            raise UsageError(
                f"photometric distortion needs image format RGB or BGR, not {image_format}: "
                "change INPUT.FORMAT or switch INPUT.COLOR_AUG_SSD off"
            )
        self.image_format = image_format
        self.brightness = brightness
        self.contrast = tuple(contrast)
        self.saturation = tuple(saturation)
        self.hue = hue

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the distortion; its values are drawn when it is applied to the image."""
        return ColorAugSSDTransform(
            self.image_format, self.brightness, *self.contrast, *self.saturation, self.hue
        )


def sem_seg_augmentations(
    *,
    base_size: Sequence[int] | None,
    ratio_range: Sequence[float] = (0.5, 2.0),
    crop_size: Sequence[int] | None = None,
    max_category_area: float = 0.75,
    ignore_value: int = 255,
    flip: float = 0.5,
    photometric: bool = True,
    image_format: str = "RGB",
) -> list[T.Augmentation]:
    """The training recipe: resize, crop, flip, photometric distortion.

    Args:
        base_size: (long, short) for :class:`RandomResize`; None or empty for no resize.
        ratio_range: scale range around the base size.
        crop_size: (height, width) of the crop, cut down to the picture; None for no crop.
        max_category_area: a crop is drawn again, at most ten times, while one class covers more
            than this share of its labelled pixels.
        ignore_value: label value that does not count as a class in the crop.
        flip: probability of a horizontal flip.
        photometric: whether to distort colours.
        image_format: channel order of the images, for the distortion.

    Returns:
        Augmentations for ``SemSegMapper`` or any detectron2 mapper.

    Raises:
        UsageError: a value out of its range.
    """
    augmentations: list[T.Augmentation] = []
    if base_size:
        augmentations.append(RandomResize(base_size, ratio_range))
    if crop_size:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise UsageError(
                f"crop size {tuple(crop_size)} must be (height, width) in whole pixels"
            )
        size = tuple(int(side) for side in crop_size)
        augmentations.append(
            T.RandomCrop_CategoryAreaConstraint("absolute", size, max_category_area, ignore_value)
        )
    if flip:
        augmentations.append(T.RandomFlip(flip))
    if photometric:
        augmentations.append(PhotometricDistortion(image_format))
    return augmentations


def test_augmentations(base_size: Sequence[int] | None = None) -> list[T.Augmentation]:
    """The test recipe: fit the base size (long, short), or nothing if there is none."""
    return [RandomResize(base_size, (1.0, 1.0))] if base_size else []


test_augmentations.__test__ = False  # its name is no invitation to pytest
