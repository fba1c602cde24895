"""Writing prepared files so that what a killed run leaves behind is never taken for done."""

import contextlib
import io
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from dnl_d2.data.labels import read_label
from dnl_d2.errors import UsageError
from dnl_d2.files import TEMPORARY, WriteError, write_bytes


def write_label(path: str, label: np.ndarray, colors: Sequence[Sequence[int]] | None) -> None:
    """Writes a label map as PNG, whole or not at all.

    Args:
        path: the file.
        label: (H, W) uint8.
        colors: RGB triples of a palette for viewers; None for a grey picture.

    Raises:
        WriteError: the disk is full, or the file cannot be written for another reason.
    """
    picture = Image.fromarray(label)
    if colors is not None:
        picture.putpalette([channel for color in colors for channel in color])
    # In memory first: Pillow does not say why it could not write a file.
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_file(path, content.getvalue())


def write_lines(path: str, lines: Iterable[str]) -> None:
    """As :func:`write_label`, for a text with a line feed after each line.

    A file that says the same already is left alone: the folder may be read-only.
    """
    content = "".join(f"{line}\n" for line in lines).encode()
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read() == content:
            return
    write_file(path, content)


def write_file(path: str, content: bytes) -> None:
    """As :func:`dnl_d2.files.write_bytes`; the folder is made."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    write_bytes(path, content)


def remove_leftovers(folders: Iterable[str]) -> None:
    """Removes the temporary files that killed runs left in the folders."""
    for folder in folders:
        for entry in os.listdir(folder) if os.path.isdir(folder) else ():
            if entry.endswith(TEMPORARY):
                with contextlib.suppress(OSError):  # gone, or not ours to remove: it is never read
                    os.remove(os.path.join(folder, entry))


def is_prepared(path: str, allowed: np.ndarray) -> bool:
    """Whether the file is a whole label map of 8 bits with no other values than the allowed.

    Args:
        path: the file, which may be missing.
        allowed: (256,) bool.
    """
    if not os.path.isfile(path):
        return False
    try:
        label = read_label(path)
    except UsageError:
        return False
    return label.dtype == np.uint8 and bool(allowed[label].all())
