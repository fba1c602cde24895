"""Opening picture files: one place that turns every kind of broken file into a clear line."""

import os
import struct
import zlib

import numpy as np
import torch
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, UnidentifiedImageError

from dnl_d2.compat import allow_large_pictures
from dnl_d2.data.opencv import cv2
from dnl_d2.data.png import read_plain_png
from dnl_d2.errors import UsageError
from dnl_d2.files import require_regular

# What Pillow is known to raise on files that are not, or not completely, a picture.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
_MANY_PIXELS, _PIXELS_OF_A_BYTE = 2**26, 10_000  # the latter of a white PNG
_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B")


def load_picture(path: str, *, kind: str = "image", header_only: bool = False) -> Image.Image:
    """Opens a picture file and decodes it.

    Args:
        path: the file, anything detectron2's ``PathManager`` can open.
        kind: how the error message calls the file.
        header_only: read mode and size but no pixels.

    Returns:
        The picture in its stored mode and stored orientation (EXIF is not applied).

    Raises:
        UsageError: the file is missing, truncated or no picture.
    """
    allow_large_pictures()
    try:
        require_regular(path)
        with PathManager.open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            picture = Image.open(file)
            if not header_only:
                _require_plausible(picture, size)
                picture.load()
            return picture
    except FileNotFoundError as error:
        raise UsageError(
            f"{kind} {path} does not exist: restore the file or leave it out"
        ) from error
    except MemoryError as error:
        raise UsageError(f"{kind} {path}: not enough memory to read it") from error
    except Image.DecompressionBombError as error:
        raise UsageError(f"{kind} {path} has more than 2**30 pixels: cut it into tiles") from error
    except BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # whose own text shows Python's file object
            empty = os.path.isfile(path) and not os.path.getsize(path)
            reason = "the file is empty" if empty else "it is no picture of a known format"
        raise UsageError(
            f"{kind} {path} cannot be read ({reason}): replace the file or leave it out"
        ) from error


def _require_plausible(picture: Image.Image, size: int) -> None:
    """Before memory is taken: a small file of very many pixels is one whose header is wrong."""
    pixels = picture.width * picture.height
    if pixels > _MANY_PIXELS and pixels > _PIXELS_OF_A_BYTE * size:
        raise OSError(f"{picture.width} x {picture.height} pixels in {size} bytes")


def image_size(path: str, *, kind: str = "image") -> tuple[int, int]:
    """Returns (height, width) of a picture as stored, from its header alone."""
    width, height = load_picture(path, kind=kind, header_only=True).size
    return height, width


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """An (H, W, C) image, which may be read-only, as a ``(C, H, W)`` tensor of its own."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def is_turned(picture: Image.Image) -> bool:
    """Whether viewers show a picture in another orientation than it is stored in (EXIF)."""
    return picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)


def is_dim(picture: Image.Image) -> bool:
    """Whether deep grey fills 12 bits at most: scaled to 8, as it is read, it is nearly black."""
    return picture.mode in _DEEP_GREY and bool(np.asarray(picture).max() < 2**12)


def read_image(path: str, image_format: str) -> np.ndarray:
    """Reads an image in the layout the model wants, whatever mode it is stored in.

    Unlike ``detectron2.data.detection_utils.read_image`` it does not turn the picture by its EXIF
    orientation: label maps carry no such tag and describe the stored pixels. 16-bit grey, which
    Pillow would clip to white, is scaled to 8 bits.

    Args:
        path: the image file; grey, palette and RGBA pictures are converted.
        image_format: "RGB", "BGR" or any other format of detectron2's ``INPUT.FORMAT``.

    Returns:
        (H, W, C) array, uint8 for the Pillow modes and "BGR".

    Raises:
        UsageError: the file is missing, truncated or no picture.
    """
    if image_format in ("RGB", "BGR"):
        pixels = read_plain_png(path, 3)
        if pixels is not None:
            return pixels if image_format == "RGB" else _reversed_channels(pixels)
    return to_array(load_picture(path), image_format)


def _reversed_channels(image: np.ndarray) -> np.ndarray:
    """An (H, W, 3) image from RGB to BGR; OpenCV makes an array of its own of it."""
    return image[..., ::-1] if cv2 is None else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def to_array(picture: Image.Image, image_format: str) -> np.ndarray:
    """An opened picture of any mode as :func:`read_image` gives it."""
    if picture.mode in _DEEP_GREY:
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    elif picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # the way Pillow wants it, or it warns
    return convert_PIL_to_numpy(picture, image_format)
