"""Resize, crop, flip and colours against mmsegmentation's transforms, bit for bit."""

import random
import sys
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
from detectron2.data import transforms as T

from dnl_d2.config.keys import PUBLISHED_SCALES
from dnl_d2.data import (
    MultiScaleFlip,
    PhotometricDistortion,
    RandomResize,
    colours,
    sem_seg_augmentations,
)
from dnl_d2_parity.references import mmseg

SIZES = [(1, 1), (5, 7), (48, 64), (33, 47), (37, 100), (100, 37), (500, 375), (281, 500)]
BASES = [(64, 48), (2048, 512), (520, 520), (33, 31)]


def picture(rng, height, width):
    """With edges and flat areas, as labels have them."""
    coarse = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((4, 4, 1), np.uint8))[:height, :width]
    return np.where(rng.random(image.shape) < 0.3, rng.integers(0, 256, image.shape), image).astype(
        np.uint8
    )


def apply(augmentations, image, label):
    inputs = T.AugInput(image, sem_seg=label)
    T.AugmentationList(augmentations)(inputs)
    return inputs.image, inputs.sem_seg


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_is_mmcvs(rng, size, base):
    """Image and label, of any label type and with one channel."""
    image = picture(rng, *size)
    label = rng.integers(0, 60000, size)
    resize = RandomResize(base, (1.0, 1.0))
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        typed = label.astype(dtype)
        got, got_label = apply([resize], image, typed)
        np.testing.assert_array_equal(got, mmcv.imrescale(image, base))
        # OpenCV 4 does not know int64.
        expected = mmcv.imrescale(typed.astype(np.int32), base, interpolation="nearest")
        np.testing.assert_array_equal(got_label, expected.astype(dtype))
        assert got_label.dtype == dtype
    grey, _ = apply([resize], image[..., :1], None)
    np.testing.assert_array_equal(grey[..., 0], mmcv.imrescale(image[..., 0], base))


def test_resize_of_views(rng):
    """Mirrored and channel-swapped arrays are no contiguous memory."""
    image = picture(rng, 21, 34)[:, ::-1, ::-1]
    got, _ = apply([RandomResize((50, 50), (1, 1))], image, None)
    np.testing.assert_array_equal(got, mmcv.imrescale(np.ascontiguousarray(image), (50, 50)))


@pytest.mark.parametrize("size", SIZES[2:], ids=str)
def test_scales_of_a_test(rng, size):
    """Of the base size: 0.x's rule; of the picture: what 1.x's Resize does."""
    image = picture(rng, *size)
    for base in BASES:
        views = MultiScaleFlip(base_size=base)(image)
        for ratio, view in zip(PUBLISHED_SCALES, views, strict=True):
            limits = tuple(int(side * ratio) for side in base)
            np.testing.assert_array_equal(view, mmcv.imrescale(image, limits))
    for ratio, view in zip(PUBLISHED_SCALES, MultiScaleFlip()(image), strict=True):
        (resize,) = mmseg.transforms(dict(type="Resize", scale_factor=ratio, keep_ratio=True))
        np.testing.assert_array_equal(view, resize({"img": image})["img"])


@pytest.mark.parametrize("crop", [(20, 30), (64, 64), (300, 41)], ids=str)
@pytest.mark.parametrize("limit", [0.75, 0.3, 1.0])
def test_resize_crop_and_flip_are_mmsegs(rng, crop, limit):
    """With equal seeds; also where no crop is within the limit, or the crop is larger."""
    resize = dict(type="RandomResize", scale=(96, 64), ratio_range=(0.5, 2.0), keep_ratio=True)
    pipeline = mmseg.transforms(
        resize,
        dict(type="RandomCrop", crop_size=crop, cat_max_ratio=limit),
        dict(type="RandomFlip", prob=0.5),
    )
    ours = sem_seg_augmentations(
        base_size=(96, 64), crop_size=crop, max_category_area=limit, photometric=False
    )
    for seed in range(30):
        size = rng.integers(20, 120, 2)
        image, label = picture(rng, *size), picture(rng, *size)[..., 0] % 4
        label[: size[0] // 3] = 255
        results = {"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"]}
        np.random.seed(seed)
        results = mmseg.transformed(results, pipeline)
        np.random.seed(seed)
        got, got_label = apply(ours, image, label)
        np.testing.assert_array_equal(got, results["img"])
        np.testing.assert_array_equal(got_label, results["gt_seg_map"])


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_colours_are_mmsegs(rng, image_format, monkeypatch):
    """With the same draws. Without them the hue differs: mmsegmentation never draws 18 of 18."""
    ours = PhotometricDistortion(image_format)
    (distort,) = mmseg.transforms(dict(type="PhotoMetricDistortion"))
    for seed in range(40):
        image = picture(rng, 9, 11)
        draws = random.Random(seed)
        shared = SimpleNamespace(
            uniform=draws.uniform,
            randrange=draws.randrange,
            randint=lambda low, high=None, d=draws: (
                d.randint(low, high) if high else d.randrange(2)
            ),
        )
        monkeypatch.setattr(sys.modules[type(distort).__module__], "random", shared)
        expected = distort({"img": image})["img"]
        draws.seed(seed)
        monkeypatch.setattr(colours, "random", shared)
        order = slice(None) if image_format == "BGR" else slice(None, None, -1)
        got, _ = apply([ours], np.ascontiguousarray(image[..., order]), None)
        np.testing.assert_array_equal(got[..., order], expected)


def test_antialiasing_would_be_seen(rng):
    """detectron2's own resize is another picture."""
    image = picture(rng, 100, 100)
    pillow = T.ResizeTransform(100, 100, 30, 30).apply_image(image)
    assert abs(pillow.astype(int) - cv2.resize(image, (30, 30))).mean() > 5
