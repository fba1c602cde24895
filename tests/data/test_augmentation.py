import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.utils.env import seed_all_rng

from dnl_d2.data import (
    MultiScaleFlip,
    PhotometricDistortion,
    RandomResize,
    opencv,
    sem_seg_augmentations,
    test_augmentations,
)
from dnl_d2.data.colours import ColorJitter
from dnl_d2.data.crop import CategoryCrop, RandomFlip, ResizedCrop
from dnl_d2.errors import UsageError

FIXED = (1.0, 1.0)


def apply(augmentation, image, label=None):
    inputs = T.AugInput(image, sem_seg=label)
    T.AugmentationList([augmentation])(inputs)
    return inputs.image, inputs.sem_seg


@pytest.mark.parametrize(
    ("size", "base", "ratio", "expected"),
    [
        ((100, 200), (2048, 1024), 1.0, (1024, 2048)),
        ((200, 100), (2048, 1024), 1.0, (2048, 1024)),  # portrait
        ((100, 200), (2048, 512), 1.0, (512, 1024)),  # the short side decides
        ((50, 200), (100, 80), 1.0, (25, 100)),  # the long side decides
        ((100, 200), (512, 1024), 0.5, (256, 512)),  # order of the base size
        ((33, 47), (47, 33), 1.0, (33, 47)),
        ((1, 300), (30, 30), 1.0, (1, 30)),  # never nothing
    ],
)
def test_resize_fits_the_scaled_base_size(size, base, ratio, expected):
    image = np.zeros((*size, 3), np.uint8)
    resized, _ = apply(RandomResize(base, (ratio, ratio)), image)
    assert resized.shape[:2] == expected


def test_resize_backwards():
    """As detectron2's augmented test of detectors undoes a resize, boxes included."""
    transform = RandomResize((40, 30), (1, 1)).get_transform(np.zeros((15, 20, 3), np.uint8))
    back = transform.inverse()
    assert type(back) is type(transform)
    assert back.apply_image(np.zeros((30, 40, 3), np.uint8)).shape == (15, 20, 3)
    box = np.array([[1.0, 2.0, 7.5, 9.0]])
    np.testing.assert_allclose(back.apply_box(transform.apply_box(box)), box)


@pytest.mark.parametrize(
    "build",
    [lambda: RandomResize((4, 4)), MultiScaleFlip, PhotometricDistortion],
    ids=["resize", "multi-scale", "colours"],
)
def test_missing_opencv_is_one_line(build, monkeypatch):
    monkeypatch.setattr(opencv, "cv2", None)
    with pytest.raises(UsageError, match="pip install opencv"):
        build()


@pytest.mark.parametrize("options", [{"scales": ()}, {"scales": (0.5, 0)}, {"base_size": (4,)}])
def test_bad_scales(options):
    with pytest.raises(UsageError, match=r"scales|base size"):
        MultiScaleFlip(**options)


@pytest.mark.parametrize("base", [(100,), (0, 10), (10, 20, 30)])
def test_bad_base_size(base):
    with pytest.raises(UsageError, match="base size"):
        RandomResize(base)


@pytest.mark.parametrize("ratio", [(2.0, 0.5), (0.0, 1.0), (1.0,)])
def test_bad_ratio_range(ratio):
    with pytest.raises(UsageError, match="ratio range"):
        RandomResize((10, 10), ratio)


def test_distortion_changes_colours_only_and_follows_the_seed(rng):
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (8, 8), dtype=np.uint8)
    distort = PhotometricDistortion("RGB")

    def run(seed):
        seed_all_rng(seed)
        return [apply(distort, image, label) for _ in range(8)]

    first, second, other = run(1), run(1), run(2)
    for (a, label_a), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(label_a, label)
    assert any((a != b).any() for (a, _), (b, _) in zip(first, other, strict=True))
    assert any((a != image).any() for a, _ in first)


def test_distortion_stays_in_its_ranges():
    seed_all_rng(0)
    grey = np.full((2, 2, 3), 100, np.uint8)
    only_brightness = PhotometricDistortion(contrast=(1, 1), saturation=(1, 1), hue=0)
    values = [int(apply(only_brightness, grey)[0][0, 0, 0]) for _ in range(300)]
    assert 68 <= min(values) < 75 and 125 < max(values) <= 132

    only_contrast = PhotometricDistortion(brightness=0, saturation=(1, 1), hue=0)
    values = [int(apply(only_contrast, grey)[0][0, 0, 0]) for _ in range(300)]
    assert 50 <= min(values) < 60 and 140 < max(values) <= 150


def test_distortion_refuses_other_formats():
    with pytest.raises(UsageError, match=r"INPUT\.FORMAT"):
        PhotometricDistortion("L")


@pytest.mark.parametrize("crop_size", [(0, 5), (5,), (0.5, 0.5)])
def test_bad_crop_size(crop_size):
    with pytest.raises(UsageError, match="crop size"):
        sem_seg_augmentations(base_size=None, crop_size=crop_size)


def test_recipe_order_and_switches():
    full = sem_seg_augmentations(base_size=(64, 32), crop_size=(16, 16))
    assert [type(a) for a in full] == [ResizedCrop, RandomFlip, PhotometricDistortion]
    crop = full[0].crop
    assert crop.ignored_category == 255 and crop.single_category_max_area == 0.75
    (alone,) = sem_seg_augmentations(
        base_size=None, ratio_range=FIXED, crop_size=(16, 16), flip=0, photometric=False
    )
    assert type(alone) is CategoryCrop
    assert sem_seg_augmentations(base_size=None, ratio_range=FIXED, flip=0, photometric=False) == []


def test_without_a_base_size_each_picture_scales_by_itself():
    (resize,) = sem_seg_augmentations(
        base_size=None, ratio_range=(0.5, 2.0), ratio_step=0.25, flip=0, photometric=False
    )
    seed_all_rng(1)
    sizes = set()
    for _ in range(200):
        image, _ = apply(resize, np.zeros((40, 80, 3), np.uint8), np.zeros((40, 80), np.uint8))
        sizes.add(image.shape[:2])
    # 0.5, 0.75, ..., 2.0 and nothing between
    assert sizes == {(10 * n, 20 * n) for n in range(2, 9)}


def test_steps_end_with_the_range():
    seed_all_rng(1)
    resize = RandomResize((100, 100), (0.1, 0.4), step=0.1)
    drawn = {resize.get_transform(np.zeros((100, 100, 3))).new_h for _ in range(100)}
    assert drawn == {10, 20, 30, 40}
    with pytest.raises(UsageError, match="step -1"):
        RandomResize((100, 100), step=-1)


def test_jitter_is_paddlesegs(rng):
    """Brightness scales all pixels by one factor in the range, every other time; labels stay."""
    torch.manual_seed(1)
    image = np.full((4, 5, 3), 100, np.uint8)
    factors, unchanged = [], 0
    for _ in range(300):
        out, label = apply(ColorJitter(0.4, hue=0), image, np.ones((4, 5), np.uint8))
        assert label.min() == 1 and len(np.unique(out)) == 1
        factors.append(out[0, 0, 0] / 100)
        unchanged += bool((out == image).all())
    # Grey: contrast, saturation and hue change nothing; brightness is drawn every other time.
    assert 0.6 <= min(factors) < 0.65 and 1.35 < max(factors) <= 1.4
    assert 120 < unchanged < 180
    colours = rng.integers(0, 255, (4, 5, 3)).astype(np.uint8)
    shifted, _ = apply(ColorJitter(0.0, hue=128), colours, np.ones((4, 5), np.uint8))
    assert shifted.shape == colours.shape


@pytest.mark.parametrize("bad", [{"amount": 1.5}, {"amount": 0.1, "hue": 300}])
def test_bad_jitter(bad):
    with pytest.raises(UsageError, match="COLOR_JITTER"):
        ColorJitter(**bad)
    with pytest.raises(UsageError, match="format RGB"):
        ColorJitter(0.1, image_format="BGR")


def test_test_recipe_is_deterministic():
    assert test_augmentations(()) == [] and test_augmentations(None) == []
    (resize,) = test_augmentations((60, 30))
    image = np.zeros((10, 20, 3), np.uint8)
    assert {apply(resize, image)[0].shape for _ in range(5)} == {(30, 60, 3)}
