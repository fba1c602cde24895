"""Augmentation of the published semantic segmentation recipes, as detectron2 augmentations."""

from collections.abc import Sequence

from detectron2.data import transforms as T

from dnl_d2.data.colours import ColorJitter, PhotometricDistortion
from dnl_d2.data.crop import CategoryCrop, RandomFlip, ResizedCrop
from dnl_d2.data.resize import RandomResize
from dnl_d2.errors import UsageError


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
    resizes = base_size or tuple(ratio_range) != (1, 1)
    resize = RandomResize(base_size, ratio_range, step=ratio_step) if resizes else None
    crop = _crop(crop_size, max_category_area, ignore_value) if crop_size else None
    both = [ResizedCrop(resize, crop)] if resize and crop else [resize, crop]
    augmentations: list[T.Augmentation] = [one for one in both if one]
    if flip:
        augmentations.append(RandomFlip(flip))
    if photometric:
        augmentations.append(PhotometricDistortion(image_format))
    if jitter:
        augmentations.append(ColorJitter(jitter, image_format=image_format))
    return augmentations


def largest_size(augmentations: Sequence[T.Augmentation | T.Transform]) -> list[int] | None:
    """(long, short) sides that these augmentations show a picture at, at most; None if any."""
    first = augmentations[0] if augmentations else None
    resize = first.resize if isinstance(first, ResizedCrop) else first
    if not isinstance(resize, RandomResize) or resize.base_size is None:
        return None
    return [int(side * resize.ratio_range[1]) for side in resize.base_size]


def _crop(crop_size: Sequence[int], max_category_area: float, ignore_value: int) -> CategoryCrop:
    if len(crop_size) != 2 or min(crop_size) < 1:
        raise UsageError(f"crop size {tuple(crop_size)} must be (height, width) in whole pixels")
    size = tuple(int(side) for side in crop_size)
    return CategoryCrop("absolute", size, max_category_area, ignore_value)


def test_augmentations(base_size: Sequence[int] | None = None) -> list[T.Augmentation]:
    """The test recipe: fit the base size (long, short), or nothing if there is none."""
    return [RandomResize(base_size, (1.0, 1.0))] if base_size else []


test_augmentations.__test__ = False  # type: ignore[attr-defined]  # its name is no invitation to pytest
