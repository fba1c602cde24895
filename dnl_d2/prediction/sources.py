"""Where pictures come from: files, folders, patterns, videos, standard input."""

import glob
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from dnl_d2.data.images import BROKEN, is_dim, load_picture, to_array
from dnl_d2.errors import UsageError
from dnl_d2.files import require_regular

_logger = logging.getLogger(__name__)
# What the names of results end in, beside the JSON file of the same name.
ATTENTION = "_attention"  # and then names of block and term
RESULTS = ("_overlay.png", "_side_by_side.png", "_labels.png", "_overlay.mp4")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
_STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A picture, or the frames of a video.

    Args:
        name: of what is written: a path without its ending, relative to the folder it came from.
        path: for messages.
        frames: reads it: ``(H, W, 3)`` uint8 RGB arrays, one after the other.
        rate: frames a second; None for a picture.
    """

    name: str
    path: str
    frames: Callable[[], Iterator[np.ndarray]]
    rate: float | None = None


def upright(picture: Image.Image) -> np.ndarray:
    """A picture as a person sees it, turned by its EXIF entry: ``(H, W, 3)`` uint8, RGB."""
    return to_array(ImageOps.exif_transpose(picture), "RGB")


def read_upright(path: str) -> np.ndarray:
    """A picture file by :func:`upright`; a warning tells of one that is read as nearly black.

    Raises:
        UsageError: the file cannot be read, or holds numbers that are no grey values.
    """
    picture = load_picture(path)
    if picture.mode == "F":
        raise UsageError(f"image {path} holds fractions, not grey values: convert it to 8 bits")
    if is_dim(picture):
        _logger.warning(
            "image %s has 16 bits of which it fills 12 at most, and is nearly black once scaled to "
            "8: stretch its values", path,
        )  # fmt: skip
    return upright(picture)


def find_sources(arguments: Sequence[str], *, without: str | None = None) -> list[Source]:
    """What arguments of a command line name, in order, each once.

    Args:
        arguments: files; folders, whose pictures and videos are taken with those of their
            subfolders; patterns such as ``"photos/*.jpg"``; ``-`` for a picture, or a list of
            paths, from standard input.
        without: a folder whose files are not taken where a folder or a pattern names them.

    Raises:
        UsageError: an argument names nothing.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        named = list(_sources(argument, without))
        if not named:
            raise UsageError(
                f"{argument}: no picture or video there; known endings: "
                f"{' '.join(sorted({*_endings(), *VIDEOS}))}"
            )
        found.update({os.path.abspath(source.path): source for source in named})
    return _with_own_names(list(found.values()))


def _sources(argument: str, without: str | None) -> Iterator[Source]:
    if argument == _STDIN:
        yield from _from_stdin()
    elif os.path.isdir(argument):
        for folder, folders, files in os.walk(argument):
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and not _is_below(os.path.join(folder, name), without)
            )
            for file in sorted(files):
                path = os.path.join(folder, file)
                known = file.lower().endswith((*_endings(), *VIDEOS))
                if known and not file.startswith(".") and not _is_result(path):
                    yield _source(path, os.path.relpath(path, argument))
    elif os.path.exists(argument):
        yield _source(argument, os.path.basename(argument))
    elif glob.has_magic(argument):
        for path in sorted(glob.glob(argument, recursive=True)):
            if os.path.isfile(path) and not _is_below(path, without):
                yield _source(path, os.path.basename(path))
    else:
        raise UsageError(f"{argument}: there is no such file or folder")


def _is_below(path: str, folder: str | None) -> bool:
    if folder is None:
        return False
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def _is_result(path: str) -> bool:
    """Whether a file is what an earlier prediction, or drawing of attention, has written."""
    written_with = [path.removesuffix(ending) for ending in RESULTS if path.endswith(ending)]
    written_with += [path[: found.end()] for found in re.finditer(ATTENTION, path)]
    return any(os.path.exists(f"{stem}.json") for stem in written_with)


def _source(path: str, name: str) -> Source:
    stem = os.path.splitext(name)[0]
    if path.lower().endswith(VIDEOS):
        return Source(stem, path, lambda: _video_frames(path), _frame_rate(path))
    rate = _animation_rate(path)
    if rate is None:
        return Source(stem, path, lambda: iter([read_upright(path)]))
    return Source(stem, path, lambda: _animation_frames(path), rate)


def _from_stdin() -> Iterator[Source]:
    data = sys.stdin.buffer.read()
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except OSError:  # a list of paths, then
        try:
            lines = data.decode().splitlines()
        except UnicodeDecodeError as error:
            raise UsageError("-: standard input is no picture and no list of paths") from error
        for line in lines:
            if line.strip():
                yield _source(line.strip(), os.path.basename(line.strip()))
        return
    yield Source("stdin", _STDIN, lambda: iter([upright(picture)]))


def _animation_frames(path: str) -> Iterator[np.ndarray]:
    try:
        with open(path, "rb") as file:
            for frame in ImageSequence.Iterator(Image.open(file)):
                yield upright(frame)
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read to its end ({reason}): replace it") from error


def _animation_rate(path: str) -> float | None:
    """Frames a second of an animated GIF, PNG or WebP; None for a still picture."""
    try:
        require_regular(path)
        with Image.open(path) as picture:
            if not getattr(picture, "is_animated", False):
                return None
            return 1000 / (picture.info.get("duration") or 100)
    except BROKEN:  # told when it is read
        return None


def _video_frames(path: str) -> Iterator[np.ndarray]:
    cv2 = opencv(path)
    video = cv2.VideoCapture(path)
    told, count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    try:
        while True:
            there, frame = video.read()
            if not there:
                break
            count += 1
            yield np.ascontiguousarray(frame[:, :, ::-1])
    finally:
        video.release()
    if not count:
        raise UsageError(f"video {path} has no frame that can be read: replace the file")
    if count < told - 1:  # some containers count one too many
        _logger.warning("video %s: only %d of its %d frames can be read", path, count, told)


def _frame_rate(path: str) -> float:
    cv2 = opencv(path)
    return float(cv2.VideoCapture(path).get(cv2.CAP_PROP_FPS)) or 25.0


def opencv(path: str) -> Any:
    """The module ``cv2``; raises a UsageError that names the video if it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise UsageError(f"video {path} needs OpenCV: install opencv-python") from error
    return cv2


def _endings() -> tuple[str, ...]:
    Image.init()
    return tuple(
        ending for ending, kind in Image.EXTENSION.items() if kind in Image.OPEN and kind in _KINDS
    )


# Those of Pillow's that hold pictures; it also opens PDF, MPEG and scientific stubs.
_KINDS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF")


def _with_own_names(sources: list[Source]) -> list[Source]:
    """Pictures of one name and different endings keep the ending in theirs."""
    seen: dict[str, int] = {}
    for source in sources:
        seen[source.name] = seen.get(source.name, 0) + 1
    named = []
    used: set[str] = set()
    for source in sources:
        name = source.name
        if seen[name] > 1:
            name += os.path.splitext(source.path)[1]
        if name in used:
            raise UsageError(
                f"{source.path}: another of the pictures would be written under the same name, "
                f"{name}: give their common folder"
            )
        used.add(name)
        named.append(Source(name, source.path, source.frames, source.rate))
    return named
