"""Crops that are computed alone against those that are cut out of whole resized pictures."""

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.utils.env import seed_all_rng

from dnl_d2.data import RandomResize, SemSegMapper, sem_seg_augmentations
from dnl_d2.data.crop import CategoryCrop, ResizedCrop, ResizedCropTransform
from dnl_d2.data.resize import ResizeTransform, resized, resized_part
from tests.data import plain_pipeline


def scene(rng, height, width):
    """A picture of waves and noise, and a label of few classes of which 11 is none."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 7 + y / 11)[..., None] * (40, 60, 80) + 128
    image = (waves + rng.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)
    label = (x // 23 + y // 31) % 4
    label[: height // 5] = 11
    return image, label.astype(np.uint8)


@pytest.mark.parametrize("base", [(160, 96), None], ids=str)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_records_are_those_of_the_plain_pipeline(rng, save, base, suffix, image_format):
    """Every draw is made in the same order, too: the crops after a seed are the same."""
    options = dict(base_size=base, crop_size=(48, 64))
    mapper = SemSegMapper(
        True,
        augmentations=sem_seg_augmentations(
            **options, max_category_area=0.5, image_format=image_format
        ),
        num_classes=4,
        dataset_ignore_label=11,
        image_format=image_format,
    )
    records = []
    for number, size in enumerate([(96, 160), (61, 97), (130, 75), (40, 50)]):
        image, label = scene(rng, *size)
        paths = save(f"{number}.{suffix}", image), save(f"{number}_label.png", label)
        records.append(dict(zip(("file_name", "sem_seg_file_name"), paths, strict=True)))
    options |= dict(limit=0.5, ignore_label=11, image_format=image_format)
    seed_all_rng(7)
    expected = [plain_pipeline.mapped(record, **options) for record in records * 12]
    seed_all_rng(7)
    for record, (image, label) in zip(records * 12, expected, strict=True):
        found = mapper(record)
        np.testing.assert_array_equal(found["image"].numpy(), image)
        np.testing.assert_array_equal(found["sem_seg"].numpy(), label)
    assert len({image.shape for image, _ in expected}) > 1  # also pictures below the crop's size


@pytest.mark.parametrize(
    ("dtype", "channels", "nearest"),
    [
        (np.uint8, (3,), False),
        (np.uint8, (1,), False),
        (np.float32, (3,), False),
        (np.uint8, (), True),
        (np.int32, (), True),
        (np.int64, (), True),
    ],
)
def test_a_part_is_that_of_the_whole(rng, dtype, channels, nearest):
    for trial in range(150):
        height, width = (int(side) for side in rng.integers(1, 150, 2))
        factors = [(0.5, 0.5), (2, 2), rng.uniform(0.2, 3, 2)][min(trial % 6, 2)]
        size = tuple(max(1, round(s * f)) for s, f in zip((height, width), factors, strict=True))
        start = [int(rng.integers(side)) for side in size]
        stop = [int(rng.integers(low + 1, side + 1)) for low, side in zip(start, size, strict=True)]
        rows, columns = slice(start[0], stop[0]), slice(start[1], stop[1])
        array = rng.integers(0, 256, (height, width, *channels)).astype(dtype)
        whole = resized(array, size, nearest=nearest)
        part = resized_part(array, size, rows, columns, nearest=nearest)
        np.testing.assert_array_equal(part, whole[rows, columns])
        assert part.dtype == dtype


def test_a_view_may_be_resized(rng):
    array = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)[:, ::-1, ::-1]
    rows, columns = slice(3, 20), slice(30, 60)
    expected = resized(array, (60, 75))[rows, columns]
    np.testing.assert_array_equal(resized_part(array, (60, 75), rows, columns), expected)


def test_points_and_polygons_move_along():
    """As by the two transforms one after the other."""
    resize, crop = ResizeTransform(20, 40, 40, 80), T.CropTransform(10, 6, 30, 20)
    both, one = T.TransformList([resize, crop]), ResizedCropTransform(resize, crop)
    points = np.array([[8.0, 6.0], [12.0, 6.0], [12.0, 9.0]])
    np.testing.assert_array_equal(one.apply_coords(points.copy()), both.apply_coords(points.copy()))
    (found,), (expected,) = (t.apply_polygons([points.copy()]) for t in (one, both))
    np.testing.assert_array_equal(found, expected)
    assert expected.shape == (3, 2)


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_a_picture_that_keeps_its_size_is_only_cut(rng, limit):
    image, label = scene(rng, 60, 80)
    crop = ResizedCrop(
        RandomResize((80, 60), (1, 1)), CategoryCrop("absolute", (20, 30), limit, 11)
    )
    inputs = T.AugInput(image, sem_seg=label)
    found = crop(inputs)
    assert isinstance(found, T.CropTransform)
    rows, columns = slice(found.y0, found.y0 + 20), slice(found.x0, found.x0 + 30)
    np.testing.assert_array_equal(inputs.image, image[rows, columns])
    np.testing.assert_array_equal(inputs.sem_seg, label[rows, columns])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_crop_of_one_class_is_drawn_again(dtype):
    """A strip of class 1, and a value that is none: one crop in many shows two classes."""
    label = np.zeros((40, 400), dtype)
    label[:, :30], label[:10] = 1, 255
    for seed in range(20):
        np.random.seed(seed)
        crop = CategoryCrop("absolute", (40, 40), 0.8, 255).get_transform(label, label)
        np.random.seed(seed)
        lefts = []
        for _ in range(11):
            np.random.randint(1)
            lefts.append(np.random.randint(361))
        mixed = [x for x in lefts[:10] if x < 30 and 0.2 < (30 - x) / 40 < 0.8]
        assert crop.x0 == (mixed or lefts[10:])[0]
