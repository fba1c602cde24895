"""Faster decoders of PNG files against Pillow."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dnl_d2.data import png, read_image, read_label
from dnl_d2.data.png import read_plain_png
from dnl_d2.errors import UsageError

DECODERS = ("kornia_rs", "OpenCV")


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch):
    """One after the other, if it is there."""
    if request.param == "OpenCV":
        monkeypatch.setattr(png, "decode_image_png_u8", None)
    elif png.decode_image_png_u8 is None:
        pytest.skip("kornia_rs is not installed")
    return request.param


@pytest.fixture
def colours(rng):
    return rng.integers(0, 256, (13, 21, 3), dtype=np.uint8)


def pillows(path, mode="RGB"):
    return np.asarray(Image.open(path).convert(mode))


@pytest.mark.parametrize("compress_level", [0, 1, 9])
def test_rgb(decoder, save, colours, compress_level):
    path = save("a.png", colours, compress_level=compress_level)
    np.testing.assert_array_equal(read_plain_png(path, 3), colours)
    np.testing.assert_array_equal(read_image(path, "RGB"), colours)
    np.testing.assert_array_equal(read_image(path, "BGR"), colours[..., ::-1])


def test_grey(decoder, save, colours):
    path = save("a.png", colours[..., 0])
    np.testing.assert_array_equal(read_plain_png(path, 1), colours[..., 0])
    np.testing.assert_array_equal(read_label(path), colours[..., 0])
    np.testing.assert_array_equal(read_image(path, "RGB"), pillows(path))


def test_harmless_chunks(decoder, save, colours):
    """As Photoshop and cameras' converters write: density, software, time."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a converter")
    info.add(b"gAMA", struct.pack(">I", 45455))
    path = save("a.png", colours, pnginfo=info, dpi=(300, 300))
    np.testing.assert_array_equal(read_plain_png(path, 3), colours)


def odd_pictures(colours):
    """Pictures that Pillow reads, with options for saving."""
    grey, exif = Image.fromarray(colours[..., 0]), Image.Exif()
    exif[274] = 6
    return {
        "palette": (Image.fromarray(colours).quantize(16), {}),
        "rgba": (Image.fromarray(colours).convert("RGBA"), {}),
        "grey with alpha": (grey.convert("LA"), {}),
        "transparent colour": (Image.fromarray(colours), {"transparency": (1, 2, 3)}),
        "transparent grey": (grey, {"transparency": 7}),
        "16 bits": (Image.fromarray(colours[..., 0].astype(np.uint16) << 8), {}),
        "two values": (grey.convert("1"), {}),
        "turned": (Image.fromarray(colours), {"exif": exif}),
        "colour profile": (Image.fromarray(colours), {"icc_profile": b"0" * 200}),
    }


@pytest.mark.parametrize("kind", odd_pictures(np.zeros((2, 2, 3), np.uint8)))
def test_others_are_left_to_pillow(decoder, save, colours, kind, capfd):
    picture, options = odd_pictures(colours)[kind]
    path = save("a.png", picture, **options)
    assert read_plain_png(path, 1) is None and read_plain_png(path, 3) is None
    if kind != "16 bits":  # which are scaled, as tests.data.test_images has it
        np.testing.assert_array_equal(read_image(path, "RGB"), pillows(path))
    assert capfd.readouterr().err == ""


def test_a_file_that_is_none(tmp_path, save, colours):
    assert read_plain_png(str(tmp_path / "gone.png"), 3) is None
    assert read_plain_png(save("a.jpg", colours), 3) is None
    (tmp_path / "empty.png").write_bytes(b"")
    assert read_plain_png(str(tmp_path / "empty.png"), 3) is None


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_cut_file_is_named_in_a_line(decoder, tmp_path, save, rng, keep, capfd):
    whole = save("a.png", rng.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    content = Path(whole).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UsageError, match=r"cut\.png cannot be read"):
        read_image(str(cut), "RGB")
    assert capfd.readouterr().err == ""


def test_changed_bytes_are_noticed(decoder, tmp_path, save, colours, capfd):
    """One byte of a file at a time: what is read then is Pillow's matter."""
    content = Path(save("a.png", colours)).read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 0x10
        (tmp_path / "changed.png").write_bytes(changed)
        assert read_plain_png(str(tmp_path / "changed.png"), 3) is None, place
    assert capfd.readouterr().err == ""


def test_broken_pixels_are_named(decoder, tmp_path, save, rng):
    whole = save("a.png", rng.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    content = bytearray(Path(whole).read_bytes())
    content[2000:2600] = bytes(600)
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"broken\.png cannot be read"):
        read_image(str(tmp_path / "broken.png"), "RGB")


def test_a_size_that_nobody_has_memory_for_is_named(decoder, tmp_path, save, colours, capfd):
    """As a file has it whose first bytes were written anew, with their checksum."""
    content = bytearray(Path(save("a.png", colours)).read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "huge.png").write_bytes(content)
    assert read_plain_png(str(tmp_path / "huge.png"), 3) is None
    with pytest.raises(UsageError, match=r"huge\.png has more than 2\*\*30 pixels"):
        read_image(str(tmp_path / "huge.png"), "RGB")
    assert capfd.readouterr().err == ""


def test_without_either_pillow_reads(monkeypatch, save, colours):
    monkeypatch.setattr(png, "decode_image_png_u8", None)
    monkeypatch.setattr(png, "cv2", None)
    path = save("a.png", colours)
    assert read_plain_png(path, 3) is None
    np.testing.assert_array_equal(read_image(path, "RGB"), colours)
