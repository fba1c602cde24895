"""Files of pictures as they should not be."""

import struct
import zlib
from pathlib import Path

import numpy as np


def truncate(path: str) -> None:
    """Cuts the file in the middle, as an interrupted copy does."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2, 4 or 8 bits per pixel, as tools that save space write it.

    Args:
        values: (H, W) below 2**bits; W is a multiple of 8.
        bits: per pixel.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    height, width = values.shape
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
    rows = np.packbits(digits.reshape(height, -1), axis=1)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
            chunk(b"IEND", b""),
        ]
    )
