"""Label maps: reading them, and the one definition of which of their values are allowed."""

from collections.abc import Callable

import numpy as np
from detectron2.utils.file_io import PathManager

from dnl_d2.data.images import load_picture
from dnl_d2.data.png import read_plain_png
from dnl_d2.errors import UsageError

_VOID = 255  # by convention "no label" in an 8-bit label map, whatever else a dataset ignores
_PNG = b"\x89PNG\r\n\x1a\n"
_INDEX_MODES = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")


def read_label(path: str) -> np.ndarray:
    """Reads a label map as class ids.

    Palette pictures give their indices, never the colours or greys the palette shows; PNGs of 2 or
    4 bits give the values that are stored.

    Args:
        path: a picture with one integer per pixel (Pillow modes L, P, 1, I or I;16).

    Returns:
        (H, W) array of class ids: uint8, or int32 for pictures of more than 8 bits.

    Raises:
        UsageError: the file is missing, truncated, no picture, or holds colours instead of ids.
    """
    plain = read_plain_png(path, 1)
    if plain is not None:
        return plain
    picture = load_picture(path, kind="label")
    if picture.mode not in _INDEX_MODES:
        raise UsageError(
            f"label {path} holds colours (mode {picture.mode}), not class ids: "
            "convert it to an 8-bit grey or palette PNG with one class id per pixel"
        )
    array = np.asarray(picture)
    if picture.mode == "L":
        array = array // _spread(array, path)
    return array.astype(np.uint8 if picture.mode in ("L", "P", "1") else np.int32)


def _spread(array: np.ndarray, path: str) -> int:
    """By what Pillow has multiplied greys of 2 or 4 bits, to reach from 0 to 255; 1 for others."""
    if (array % 17).any():  # 85 is five times 17
        return 1
    with PathManager.open(path, "rb") as file:
        header = file.read(25)
    bits = header[24] if header.startswith(_PNG) else 8
    return 255 // (2**bits - 1)


def ignored_values(num_classes: int | None, ignore_label: int) -> set[int]:
    """The values that are no label: 255 as well, unless there are so many classes that it is one.

    Args:
        num_classes: number of classes; None if it is not known.
        ignore_label: the value the dataset ignores.
    """
    many = num_classes is not None and num_classes > _VOID
    return {ignore_label} if many else {ignore_label, _VOID}


def invalid_values(label: np.ndarray, *, num_classes: int, ignore_label: int) -> list[int]:
    """Returns the values of a label map that are neither a class nor ignored, in order."""
    wrong = (label < 0) | (label >= num_classes)
    for value in ignored_values(num_classes, ignore_label):
        wrong &= label != value
    return np.unique(label[wrong]).tolist() if wrong.any() else []


def remap_ignored(
    label: np.ndarray, *, num_classes: int, ignore_label: int, ignore_value: int
) -> np.ndarray:
    """Replaces every ignored value of a label map by the model's ``ignore_value``.

    Args:
        label: (H, W) class ids as :func:`read_label` gives them; left untouched.
        num_classes: number of classes of the model.
        ignore_label: the value the dataset ignores (255 is ignored as well).
        ignore_value: the value the loss ignores.

    Returns:
        (H, W): uint8 where every value fits, else int32; ``label`` itself if nothing changes.
    """
    ignored = ignored_values(num_classes, ignore_label) - {ignore_value}
    fits = 0 <= ignore_value <= 255 and num_classes <= 256
    mapped = label.astype(np.uint8 if fits else np.int32, copy=bool(ignored))
    if ignored:
        mapped[np.isin(label, sorted(ignored))] = ignore_value
    return mapped


def evaluation_label_reader(*, num_classes: int, ignore_label: int) -> Callable[..., np.ndarray]:
    """Returns a ``sem_seg_loading_fn`` for detectron2's ``SemSegEvaluator``.

    The evaluator's own reader fails under NumPy 2 and lets a value outside the classes corrupt
    the confusion matrix. This one reads the values training reads.

    Args:
        num_classes: number of classes of the dataset.
        ignore_label: the value the dataset ignores, as in its metadata.

    Raises:
        UsageError: by the returned function, for an unreadable file or a value out of range.
    """

    def load(filename: str, copy: bool = False, dtype: type = int) -> np.ndarray:
        label = checked_label(filename, num_classes=num_classes, ignore_label=ignore_label)
        return remap_ignored(
            label, num_classes=num_classes, ignore_label=ignore_label, ignore_value=ignore_label
        ).astype(dtype)

    return load


def checked_label(path: str, *, num_classes: int, ignore_label: int) -> np.ndarray:
    """Reads a label map and insists that every value is a class or ignored.

    Raises:
        UsageError: see :func:`read_label`; or a value out of range, named with its file.
    """
    label = read_label(path)
    require_valid(label, path, num_classes=num_classes, ignore_label=ignore_label)
    return label


def require_valid(label: np.ndarray, path: str, *, num_classes: int, ignore_label: int) -> None:
    """Raises a :class:`UsageError` that names ``path`` unless all are classes or ignored."""
    wrong = invalid_values(label, num_classes=num_classes, ignore_label=ignore_label)
    if wrong:
        raise UsageError(
            f"label {path} holds the value {wrong[0]}, but the classes are 0 to {num_classes - 1} "
            f"and {ignore_label} is ignored: correct the file, the number of classes or the "
            "dataset's ignore_label"
        )
