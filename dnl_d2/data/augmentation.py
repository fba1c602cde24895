"""Augmentation of the published semantic segmentation recipes, as detectron2 augmentations."""

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from torchvision.transforms import v2

from dnl_d2.data.resize import RandomResize, require_opencv
from dnl_d2.errors import UsageError

try:
    from detectron2.projects.point_rend import ColorAugSSDTransform
except ImportError:  # without OpenCV, which require_opencv() reports
    ColorAugSSDTransform = None


class CategoryCrop(T.RandomCrop_CategoryAreaConstraint):
    """Crops where no class covers too much of the labelled pixels, or after ten tries anywhere.

    detectron2's stays with the tenth try, which has failed too; mmsegmentation draws once more.
    """

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        """Draws the crop for an (H, W[, C]) image and its (H, W) label map."""
        if self.single_category_max_area < 1.0:
            for _ in range(10):
                crop = self.crop_aug.get_transform(image)
                labels, counts = np.unique(crop.apply_segmentation(sem_seg), return_counts=True)
                counts = counts[labels != self.ignored_category]
                if len(counts) > 1 and counts.max() / counts.sum() < self.single_category_max_area:
                    return crop
        return self.crop_aug.get_transform(image)


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue; labels stay as they are.

    A thin name for detectron2's SSD transform, which draws from Python's ``random``: seeded by
    ``seed_all_rng`` and anew in every loader worker.
    The same pixels as mmsegmentation's, whose hue never shifts by the full 18 upwards, only
    downwards.
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
            UsageError: another image format, or OpenCV is missing.
        """
        super().__init__()
        require_opencv()
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


class ColorJitter(T.Augmentation):
    """PaddleSeg's distortion: brightness, contrast, saturation and hue, each every other time.

    Args:
        amount: the first three are multiplied by up to 1 - amount and 1 + amount.
        hue: largest shift of the hue, of 256.
        image_format: channel order; only "RGB".

    Raises:
        UsageError: an amount outside [0, 1], a hue outside [0, 128] or another image format.
    """

    def __init__(self, amount: float, *, hue: int = 18, image_format: str = "RGB") -> None:
        super().__init__()
        if image_format != "RGB":
            raise UsageError(
                f"colour jitter needs image format RGB, not {image_format}: change INPUT.FORMAT or "
                "set INPUT.COLOR_JITTER 0"
            )
        if not 0 <= amount <= 1 or not 0 <= hue <= 128:
            raise UsageError(
                f"colour jitter {amount} (hue {hue}): use 0 to 1 (INPUT.COLOR_JITTER), hue 0 to 128"
            )
        self.amount, self.hue = float(amount), hue
        ranges = dict.fromkeys(("brightness", "contrast", "saturation"), self.amount)
        steps = [
            v2.RandomApply([v2.ColorJitter(**{name: extent})], p=0.5)
            for name, extent in (ranges | {"hue": hue / 256}).items()
        ]
        self._distort = v2.RandomOrder(steps)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the distortion; its values are drawn when it is applied to the image."""
        return T.PILColorTransform(self._distort)


def sem_seg_augmentations(
    *,
    base_size: Sequence[int] | None,
    ratio_range: Sequence[float] = (0.5, 2.0),
    ratio_step: float = 0.0,
    crop_size: Sequence[int] | None = None,
    max_category_area: float = 0.75,
    ignore_value: int = 255,
    flip: float = 0.5,
    photometric: bool = True,
    jitter: float = 0.0,
    image_format: str = "RGB",
) -> list[T.Augmentation]:
    """The training recipe: resize, crop, flip, photometric distortion.

    Args:
        base_size: (long, short) for :class:`RandomResize`; None or empty: each picture's own.
        ratio_range: scale range around the base size.
        ratio_step: distance of the scales that are drawn; 0 for any scale.
        crop_size: (height, width) of the crop, cut down to the picture; None for no crop.
        max_category_area: a crop is drawn again, at most ten times, while one class covers more
            than this share of its labelled pixels.
        ignore_value: label value that does not count as a class in the crop.
        flip: probability of a horizontal flip.
        photometric: whether to distort colours as mmsegmentation does.
        jitter: how far to distort colours as PaddleSeg does; 0 for not at all.
        image_format: channel order of the images, for the distortion.

    Returns:
        Augmentations for ``SemSegMapper`` or any detectron2 mapper.

    Raises:
        UsageError: a value out of its range.
    """
    augmentations: list[T.Augmentation] = []
    if base_size or tuple(ratio_range) != (1, 1):
        augmentations.append(RandomResize(base_size, ratio_range, step=ratio_step))
    if crop_size:
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise UsageError(
                f"crop size {tuple(crop_size)} must be (height, width) in whole pixels"
            )
        size = tuple(int(side) for side in crop_size)
        augmentations.append(CategoryCrop("absolute", size, max_category_area, ignore_value))
    if flip:
        augmentations.append(T.RandomFlip(flip))
    if photometric:
        augmentations.append(PhotometricDistortion(image_format))
    if jitter:
        augmentations.append(ColorJitter(jitter, image_format=image_format))
    return augmentations


def test_augmentations(base_size: Sequence[int] | None = None) -> list[T.Augmentation]:
    """The test recipe: fit the base size (long, short), or nothing if there is none."""
    return [RandomResize(base_size, (1.0, 1.0))] if base_size else []


test_augmentations.__test__ = False  # type: ignore[attr-defined]  # its name is no invitation to pytest
