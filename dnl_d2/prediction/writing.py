"""What is written of a picture or a video: ``NAME_overlay.png`` and the like."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError, renamed_when_whole, write_bytes, write_text
from dnl_d2.prediction.results import Detections, Segmentation
from dnl_d2.prediction.sources import Source

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
    _write_picture(f"{path}_overlay.png", Image.fromarray(result.draw()))
    _write_picture(f"{path}_side_by_side.png", Image.fromarray(result.side_by_side()))
    if isinstance(result, Segmentation):
        _write_picture(f"{path}_labels.png", result.label_picture())
    write_text(f"{path}.json", json.dumps(result.summary(), indent=2) + "\n")


def write_video(folder: str, source: Source, results: Iterable[Result]) -> None:
    """Writes ``NAME_overlay.mp4``, and ``NAME.json`` with what :meth:`summary` says of each frame.

    Raises:
        UsageError: OpenCV is missing.
        WriteError: a file cannot be written.
    """
    path = os.path.join(folder, source.name)
    make_folder(os.path.dirname(path))
    figures: list[dict[str, Any]] = []

    def drawn() -> Iterator[np.ndarray]:
        for result in results:
            figures.append(result.summary())
            yield result.draw()

    with renamed_when_whole(f"{path}_overlay.mp4") as temporary:
        _encode(temporary, drawn(), source.rate or 25.0)
    write_text(f"{path}.json", json.dumps({"frames": figures}) + "\n")


def make_folder(path: str) -> None:
    """Makes a folder that is not there yet; raises a WriteError if it cannot be."""
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be made a folder ({error.strerror})") from error
    if not os.access(path or ".", os.W_OK):
        raise WriteError(f"{path}: no permission to write in this folder")


def _write_picture(path: str, picture: Image.Image) -> None:
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_bytes(path, content.getvalue())


def _encode(path: str, frames: Iterable[np.ndarray], rate: float) -> None:
    try:
        import cv2
    except ImportError as error:
        raise UsageError(f"{path}: a video needs OpenCV: install opencv-python") from error
    video = None
    for frame in frames:
        if video is None:
            height, width = frame.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            # The ending decides about the format, and a temporary name has another.
            video = cv2.VideoWriter(f"{path}.mp4", code, rate, (width, height))
            if not video.isOpened():
                raise WriteError(f"{path}: OpenCV here cannot write mp4")
        video.write(np.ascontiguousarray(frame[:, :, ::-1]))
    if video is not None:
        video.release()
        os.replace(f"{path}.mp4", path)
