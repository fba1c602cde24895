"""Masks in COCO's form against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dnl_d2.data.datasets.coco_masks import RunLengths, check_mask, has_points, mask_area
from dnl_d2.errors import UsageError
from tests.evaluation.coco_data import encode, uncompressed


def masks():
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(1, 200, 2)
        spots = rng.random((height, width)) > rng.random()
        y, x = rng.integers(0, height), rng.integers(0, width)
        block = np.zeros((height, width), bool)
        block[y : y + 70, x : x + 70] = True
        yield from (spots, block, spots & block)


def test_run_lengths_are_those_of_pycocotools():
    for mask in masks():
        height, width = mask.shape
        for code in (encode(mask), uncompressed(mask.astype(np.uint8))):
            runs = RunLengths(size=(height, width), counts=code["counts"])
            check_mask(runs, height, width, "it")
            assert mask_area(runs, height, width) == mask.sum()


def test_the_area_of_polygons_is_that_of_pycocotools():
    square, triangle = [2, 2, 12, 2, 12, 12, 2, 12], [20, 3, 28, 3, 24, 9]
    expected = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects([square, triangle], 20, 30)))
    assert mask_area([square, triangle, [1, 2]], 20, 30) == expected > 100
    assert mask_area([[1, 2, 3, 4]], 20, 30) == 0


@pytest.mark.parametrize("text", ["", "o", "1\u00e9", "0" * 3 + "oooooooo1", "P", "10", "`]31"])
def test_what_is_no_compressed_mask(text):
    with pytest.raises(UsageError, match=r"it has (run lengths that sum|'counts' that are no run)"):
        check_mask(RunLengths(size=(20, 30), counts=text), 20, 30, "it")


@pytest.mark.parametrize("counts", [[2**62] * 4 + [600], [2**40], [2**70], [-1, 601], []])
def test_what_are_no_run_lengths(counts):
    """Four times 2**62 is nothing in 64 bits."""
    with pytest.raises(UsageError, match="it has 'counts' that are no run lengths"):
        check_mask(RunLengths(size=(20, 30), counts=counts), 20, 30, "it")


def test_a_cut_or_changed_text_is_found():
    """pycocotools would decode some of these to pixels outside of the image."""
    mask = next(masks())
    text, (height, width) = encode(mask)["counts"], mask.shape
    for wrong in (text[:-1], text[1:], text + "1", text[:5] + chr(ord(text[5]) ^ 1) + text[6:]):
        with pytest.raises(UsageError):
            check_mask(RunLengths(size=(height, width), counts=wrong), height, width, "it")


def test_which_masks_are_there():
    assert has_points([[], [1, 2]]) and has_points(RunLengths(size=(1, 1), counts=[1]))
    assert not any(map(has_points, ([], [[]], [[], []])))
