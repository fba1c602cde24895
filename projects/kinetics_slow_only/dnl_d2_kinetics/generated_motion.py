"""A small dataset of videos in which only the order of the frames tells the class.

A disc stands at eight places on a horizontal line, once at each. The classes are orders of these
places: a model that sees the frames without their order can do no better than chance.
"""

import os
import shutil
import tempfile
from typing import Any

import numpy as np

from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError
from dnl_d2_kinetics.video import pyav

# Which of the places, counted from the left, the disc is at in each moment.
ORDERS = {
    "right": (0, 1, 2, 3, 4, 5, 6, 7),
    "left": (7, 6, 5, 4, 3, 2, 1, 0),
    "right_and_back": (0, 2, 4, 6, 7, 5, 3, 1),
    "left_and_back": (7, 5, 3, 1, 0, 2, 4, 6),
}
FRAMES_PER_MOMENT, FRAME_RATE = 2, 16


def generate_motion(root: str, *, train: int, val: int, size: int = 64, seed: int = 0) -> None:
    """Writes ``train/`` and ``val/`` of mp4 files, ``train.txt``, ``val.txt`` and ``classes.txt``.

    Args:
        root: the folder, which must not be there; it is there as a whole or not at all.
        train, val: numbers of videos, of which each class gets the same share.
        size: pixels of either side.
        seed: other seeds draw other videos.

    Raises:
        UsageError: the folder exists, or a number is out of range.
    """
    if os.path.exists(root):
        raise UsageError(f"{root}: is there already; delete it, or choose another folder")
    if train < len(ORDERS) or val < len(ORDERS) or size < 32:
        raise UsageError(
            f"generated videos: train {train} and val {val} must be {len(ORDERS)} or more, size "
            f"{size} 32 or more"
        )
    parent = os.path.dirname(os.path.abspath(root))
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".generating-", dir=parent) as aside:
            fresh = os.path.join(aside, "fresh")
            for number, (split, count) in enumerate((("train", train), ("val", val))):
                _write_split(fresh, split, count, size, (seed, number))
            _write_lines(fresh, "classes.txt", list(ORDERS))
            shutil.move(fresh, root)
    except OSError as error:
        raise WriteError(f"{root}: cannot be written ({error.strerror or error})") from error


def draw(order: tuple[int, ...], size: int, rng: np.random.Generator) -> np.ndarray:
    """One video: uint8 ``(len(order) * FRAMES_PER_MOMENT, size, size, 3)``.

    What is drawn at random does not depend on the order.
    """
    radius = size * rng.uniform(0.07, 0.12)
    length = size * rng.uniform(0.5, 0.8)
    left = rng.uniform(radius, size - radius - length) if size - 2 * radius > length else radius
    row = rng.uniform(radius, size - radius)
    color, background = rng.uniform(0, 255, (2, 3))
    if np.abs(color - background).max() < 100:
        color = np.where(background > 127, background - 120, background + 120)
    slope = rng.uniform(-30, 30, (2, 3))
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    scene = background + rows[..., None] * slope[0] + columns[..., None] * slope[1]
    frames = []
    for place in np.repeat(order, FRAMES_PER_MOMENT):
        column = left + place / (len(order) - 1) * length
        distance = np.hypot(np.arange(size)[:, None] - row, np.arange(size) - column)
        cover = np.clip(radius - distance + 0.5, 0, 1)[..., None]
        noise = rng.normal(0, 6, (size, size, 3))
        frames.append(scene * (1 - cover) + color * cover + noise)
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def write_video(
    path: str, frames: np.ndarray, rate: int = FRAME_RATE, codec: str = "mjpeg"
) -> None:
    """Writes uint8 ``(T, H, W, 3)`` frames.

    By default as pictures of their own: a codec that predicts frames from those before leaves
    traces of their order in each.
    """
    av = pyav()
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "mjpeg":
            stream.options = {"qmin": "2", "qmax": "2"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_split(root: str, split: str, count: int, size: int, seed: tuple[int, int]) -> None:
    os.makedirs(os.path.join(root, split))
    lines: list[Any] = []
    for index in range(count):
        label = index % len(ORDERS)
        rng = np.random.default_rng((*seed, index))
        name = f"{split}/{index:05d}.mp4"
        write_video(os.path.join(root, name), draw(list(ORDERS.values())[label], size, rng))
        lines.append(f"{name} {label}")
    _write_lines(root, f"{split}.txt", lines)


def _write_lines(root: str, name: str, lines: list[str]) -> None:
    with open(os.path.join(root, name), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
