"""What is written of a picture or a video: ``NAME_overlay.png`` and the like."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError, renamed_when_whole, write_bytes, write_text
from dnl_d2.prediction.results import Detections, Segmentation
from dnl_d2.prediction.sources import Source, opencv

Result = Segmentation | Detections


def write_prediction(folder: str, name: str, result: Result) -> None:
    """Writes the pictures and the figures of a result.

    ``NAME_overlay.png``, ``NAME_side_by_side.png`` and ``NAME.json``, of a label map also
    ``NAME_labels.png``.

    Args:
        folder: gets them, and what ``name`` has of subfolders.
        name: see :class:`~dnl_d2.prediction.sources.Source`.
        result: of the picture.

    Raises:
        WriteError: a file cannot be written.
    """
    path = os.path.join(folder, name)
    make_folder(os.path.dirname(path))
    write_picture(f"{path}_overlay.png", Image.fromarray(result.draw()))
    write_picture(f"{path}_side_by_side.png", Image.fromarray(result.side_by_side()))
    if isinstance(result, Segmentation):
        write_picture(f"{path}_labels.png", result.label_picture())
    write_text(f"{path}.json", json.dumps(result.summary(), indent=2) + "\n")


def write_video(folder: str, source: Source, results: Iterable[Result]) -> None:
    """Writes ``NAME_overlay.mp4``, and ``NAME.json`` with what :meth:`summary` says of each frame.

    Raises:
        UsageError: OpenCV is missing or cannot write the format; or a frame cannot be read or
            predicted.
        WriteError: a file cannot be written.
    """
    path = os.path.join(folder, source.name)
    make_folder(os.path.dirname(path))
    figures: list[dict[str, Any]] = []

    def drawn() -> Iterator[np.ndarray]:
        for result in results:
            figures.append(result.summary())
            yield result.draw()

    write_frames(f"{path}_overlay.mp4", source, drawn())
    write_text(f"{path}.json", json.dumps({"frames": figures}) + "\n")


def write_frames(path: str, source: Source, frames: Iterable[np.ndarray]) -> None:
    """Writes an mp4 file of ``(H, W, 3)`` frames at the rate of a video.

    Raises:
        UsageError: OpenCV is missing or cannot write the format, or the frames have several sizes.
        WriteError: the file cannot be written.
    """
    # OpenCV tells the format by the ending; and what fails in a frame is no failure of the disk.
    with tempfile.TemporaryDirectory(prefix="dnl_d2-video-") as folder:
        encoded = os.path.join(folder, "video.mp4")
        _encode(encoded, source.path, frames, source.rate or 25.0)
        with renamed_when_whole(path) as temporary:
            shutil.copyfile(encoded, temporary)


def make_folder(path: str) -> None:
    """Makes a folder that is not there yet; raises a WriteError if it cannot be."""
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be made a folder ({error.strerror})") from error
    if not os.access(path or ".", os.W_OK):
        raise WriteError(f"{path}: no permission to write in this folder")


def write_picture(path: str, picture: Image.Image) -> None:
    """Writes a PNG file; raises a WriteError if it cannot be written."""
    content = io.BytesIO()
    picture.save(content, format="PNG", compress_level=1)  # less time, larger files
    write_bytes(path, content.getvalue())


def _encode(path: str, name: str, frames: Iterable[np.ndarray], rate: float) -> None:
    cv2, video, size = opencv(name), None, None
    try:
        for frame in frames:
            if video is None:
                size = frame.shape[:2]
                video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
                if not video.isOpened():
                    raise UsageError(f"{name}: the OpenCV that is installed cannot write mp4")
            if frame.shape[:2] != size:  # OpenCV would leave it out without a word
                raise UsageError(f"{name}: its frames are not all of one size")
            video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    finally:
        if video is not None:
            video.release()
