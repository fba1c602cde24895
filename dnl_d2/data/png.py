"""PNG files by faster decoders than Pillow's, to the same pixels.

Decoding is most of what a picture of Cityscapes costs. kornia_rs takes a third of Pillow's time,
OpenCV five sixths; what they may read otherwise than Pillow is left to it.
"""

import struct
import zlib

import numpy as np
from detectron2.utils.file_io import PathManager

from dnl_d2.data.opencv import cv2
from dnl_d2.files import require_regular

try:
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # or an older one, with other functions
    decode_image_png_u8 = None

_MOST_PIXELS = 2**30  # for which Pillow has a message; kornia_rs may panic without memory
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # length and name; then the data and a checksum of name and data
_SIDES = struct.Struct(">II")  # width and height, in the first chunk
_HEADER = 29  # bytes up to the checksum of the first chunk
# By the number of channels: bits, colour type, compression, filters, interlacing.
_PLAIN = {1: b"\x08\x00\x00\x00\x00", 3: b"\x08\x02\x00\x00\x00"}
_MODES = {1: "mono", 3: "rgb"}
# Chunks of the pixels, and those that do not change them and on which OpenCV has no comment.
_HARMLESS = {
    b"IHDR", b"IDAT", b"IEND", b"gAMA", b"pHYs", b"sBIT", b"sRGB", b"tEXt", b"tIME",
}  # fmt: skip


def read_plain_png(path: str, channels: int) -> np.ndarray | None:
    """The pixels of a PNG of 8 bits per channel, without transparency, animation or interlacing.

    Args:
        path: any file that detectron2's ``PathManager`` can open.
        channels: 1 for a grey one, 3 for RGB.

    Returns:
        (H, W) or, of RGB, (H, W, 3) uint8 array. None for every other file, broken and missing ones
        included: :func:`dnl_d2.data.images.load_picture` reads it or says what is wrong.
    """
    try:
        require_regular(path)
        with PathManager.open(path, "rb") as file:
            header = file.read(_HEADER)
            if not (header.startswith(_SIGNATURE) and header[24:29] == _PLAIN[channels]):
                return None
            width, height = _SIDES.unpack_from(header, 16)
            if width * height > _MOST_PIXELS:
                return None
            file.seek(0)
            content = file.read()
        sound = _is_sound(content)
    except (OSError, struct.error):  # the latter if the file is cut
        return None
    return _decoded(content, channels) if sound else None


def _is_sound(content: bytes) -> bool:
    """Whether all chunks have their checksums, and none asks for more than plain decoding.

    Checked here because kornia_rs does not, and OpenCV comments on it on the console.
    """
    view, at, name = memoryview(content), len(_SIGNATURE), b""
    while name != b"IEND":
        length, name = _CHUNK.unpack_from(content, at)
        end = at + _CHUNK.size + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if name not in _HARMLESS or zlib.crc32(view[at + 4 : end]) != checksum:
            return False
        at = end + 4
    return True


def _decoded(content: bytes, channels: int) -> np.ndarray | None:
    if decode_image_png_u8 is not None:
        width, height = _SIDES.unpack_from(content, 16)
        try:
            pixels = decode_image_png_u8(content, (height, width), _MODES[channels])
        except Exception:  # it has no narrower type
            return None
        return pixels if channels == 3 else pixels[..., 0]
    if cv2 is None:
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return (
        cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if pixels is not None and channels == 3 else pixels
    )
