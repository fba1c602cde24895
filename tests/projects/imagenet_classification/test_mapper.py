"""Decoding and crops, and pictures that are none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2_imagenet import ClassificationMapper


def record(path, label=0):
    return {"file_name": str(path), "category_id": label}


def test_evaluation_sees_the_middle(save):
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 48:80] = (10, 20, 30)
    mapped = ClassificationMapper(False, size=32, resize=64)(record(save("a.png", pixels), 3))
    assert mapped["category_id"] == 3
    expected = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    assert torch.equal(mapped["image"], expected)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(UsageError, match=r"resized to 256: set resize .* to 384 or more"):
        ClassificationMapper(False, size=384)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(save, mode):
    kind = "tif" if mode == "CMYK" else "png"
    path = save(f"a.{kind}", Image.new("RGB", (40, 50), (200, 200, 200)).convert(mode))
    mapped = ClassificationMapper(True, size=16, jitter=0.4)(record(path))
    assert mapped["image"].shape == (3, 16, 16) and mapped["image"].dtype == torch.uint8


def test_grey_of_16_bits_is_scaled_not_clipped_to_white(save):
    pixels = np.full((8, 8), 100 * 256, np.uint16)
    image = ClassificationMapper(False, size=8, resize=8)(record(save("a.png", pixels)))["image"]
    assert image.unique().tolist() == [100]


def test_a_tiny_picture_and_a_turned_one(save):
    assert ClassificationMapper(False)(record(save("a.png", np.zeros((1, 3), np.uint8))))
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.new("RGB", (40, 20))
    picture.paste((255, 0, 0), (0, 0, 20, 20))
    path = save("b.jpg", picture, exif=exif, quality=95)
    image = ClassificationMapper(False, size=20, resize=20)(record(path))["image"]
    upright = Image.open(path).transpose(Image.Transpose.ROTATE_270)
    expected = np.asarray(upright.crop((0, 10, 20, 30))).transpose(2, 0, 1)
    assert np.array_equal(image.numpy(), expected)


@pytest.mark.parametrize("is_train", [True, False])
def test_broken_pictures_are_named_and_borne_up_to_a_number(tmp_path, caplog, is_train):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    mapper = ClassificationMapper(is_train, most_broken=2)
    broken = record(tmp_path / "broken.jpg", 3)
    assert mapper(broken) == (None if is_train else broken)
    instead = "another one is taken" if is_train else "it counts as not recognised"
    assert f"broken.jpg cannot be read (it is no picture); {instead}" in caplog.text
    mapper(record(tmp_path / "nowhere.jpg"))
    assert "nowhere.jpg cannot be read" in caplog.text
    for _ in range(3):  # in later epochs
        assert mapper(broken) == (None if is_train else broken)
    assert caplog.text.count("broken.jpg cannot be read") == 1
    with pytest.raises(UsageError, match=r"third.jpg .* too many such"):
        mapper(record(tmp_path / "third.jpg"))


def test_a_picture_that_is_cut_off_is_broken(tmp_path, save, caplog):
    path = save("cut.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert ClassificationMapper(True)(record(path)) is None
    assert "cut.jpg cannot be read (image file is truncated" in caplog.text


def test_a_picture_of_a_shard_is_decoded_from_memory():
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(content, "png")
    sample = {"file_name": "s.tar: a.png", "encoded": content.getvalue(), "category_id": 1}
    mapped = ClassificationMapper(False, size=4, resize=8)(sample)
    assert "encoded" not in mapped and mapped["image"][:, 0, 0].tolist() == [1, 2, 3]
