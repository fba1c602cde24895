import warnings

import numpy as np
import pytest
from PIL import Image

from dnl_d2.data import read_image
from dnl_d2.data.images import image_size, load_picture
from dnl_d2.errors import UsageError
from tests.pictures import truncate


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colour_is_read_exactly(save, rng, image_format):
    pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    read = read_image(save("a.png", pixels), image_format)
    expected = pixels if image_format == "RGB" else pixels[..., ::-1]
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == np.uint8


def test_grey_becomes_three_equal_channels(save, rng):
    grey = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    read = read_image(save("a.png", grey), "RGB")
    np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("bits", [16, 32])
def test_deep_grey_is_scaled_not_clipped(save, bits):
    deep = np.array([[0, 255, 256], [30000, 65280, 65535]], np.uint16)
    content = deep if bits == 16 else deep.astype(np.int32)
    suffix = "png" if bits == 16 else "tiff"
    read = read_image(save(f"a.{suffix}", content), "RGB")
    np.testing.assert_array_equal(read[..., 0], deep // 256)


def test_alpha_is_dropped(save, rng):
    pixels = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    read = read_image(save("a.png", pixels), "RGB")
    np.testing.assert_array_equal(read, pixels[..., :3])


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_shows_its_colours_without_warning(save, transparency):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = np.array([[10, 20, 30], [200, 0, 7], [0, 255, 90]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    path = save("a.png", picture, **options)
    assert Image.open(path).mode == "P"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_image(path, "RGB")
    np.testing.assert_array_equal(read, palette[indices])


def test_exif_orientation_is_not_applied(save, rng):
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees when shown
    path = save("a.png", pixels, exif=exif)
    assert image_size(path) == (4, 6)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"image .*gone\.png does not exist"):
        read_image(str(tmp_path / "gone.png"), "RGB")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file_is_named(save, rng, suffix):
    path = save(f"cut.{suffix}", rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    truncate(path)
    with pytest.raises(UsageError, match=rf"image .*cut\.{suffix} cannot be read") as caught:
        read_image(path, "RGB")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture", "it is no picture of a known format"),
        (b"\x89PNG\r\n\x1a\n", "it is no picture of a known format"),
    ],
)
def test_file_that_is_no_picture_is_named(tmp_path, content, reason):
    (tmp_path / "odd.png").write_bytes(content)
    with pytest.raises(UsageError, match=rf"image .*odd\.png cannot be read \({reason}\)"):
        read_image(str(tmp_path / "odd.png"), "RGB")


def test_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_image(str(tmp_path), "RGB")


def test_aerial_pictures_are_read(save):
    """Pillow takes 15,000 x 12,500 pixels for an attack."""
    path = save("a.png", Image.new("1", (15000, 12500)))
    assert image_size(path) == (12500, 15000)
    assert load_picture(path).size == (15000, 12500)
    larger = save("b.png", Image.new("1", (40000, 27000)))
    with pytest.raises(UsageError, match=r"b.png has more than 2\*\*30 pixels: cut it into tiles"):
        image_size(larger)
