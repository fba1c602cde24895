"""What the readers of the published datasets share."""

import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dnl_d2.data.images import image_size
from dnl_d2.data.listing import find_files, read_lines, require_all, require_folder
from dnl_d2.errors import UsageError

_READERS = 8  # headers read at a time: on a network disk the wait is for the disk


def list_files(folder: str, suffix: str, hint: str) -> dict[str, str]:
    """Lists the files of a folder that end in ``suffix``, by their names without it.

    Raises:
        UsageError: there is no such folder; ``hint`` says what is expected.
    """
    require_folder(folder, hint)
    return find_files(folder, suffix)


def read_ids(path: str, hint: str) -> list[str]:
    """Reads a list of picture names, one a line.

    Raises:
        UsageError: the list is missing, empty, no text, or has more than a name in a line.
    """
    try:
        lines = [line for line in read_lines(path) if line]
    except FileNotFoundError as error:
        raise UsageError(f"list {path} does not exist: {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"list {path} cannot be read ({error}): {hint}") from error
    for line in lines:
        if len(line.split()) > 1:
            raise UsageError(
                f"list {path} has the line {line!r}: expected one picture name a line, without "
                "folder and suffix"
            )
    if not lines:
        raise UsageError(f"list {path} is empty: {hint}")
    return [unicodedata.normalize("NFC", line) for line in lines]


def make_records(images: Sequence[str], labels: Sequence[str] | None) -> list[dict]:
    """Returns detectron2 dataset dicts, with sizes from the image headers.

    Args:
        images: image files.
        labels: their label maps, or None for a split without.

    Raises:
        UsageError: an image header cannot be read.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        sizes = list(pool.map(image_size, images))
    records = [
        {"file_name": image, "height": height, "width": width}
        for image, (height, width) in zip(images, sizes, strict=True)
    ]
    for record, label in zip(records, labels or (), strict=labels is not None):
        record["sem_seg_file_name"] = label
    return records


def load_listed(
    image_root: str,
    sem_seg_root: str,
    list_file: str,
    second_sem_seg_root: str | None = None,
    *,
    hint: str,
) -> list[dict]:
    """Lists the pictures that a file names, as the PASCAL datasets are kept.

    Args:
        image_root: folder of ``*.jpg``.
        sem_seg_root: folder of label maps, ``*.png``.
        list_file: the names of the split's pictures.
        second_sem_seg_root: folder of label maps for pictures that the first has no label of.
        hint: what to tell where anything is missing.

    Returns:
        detectron2 dataset dicts with file_name, sem_seg_file_name, height and width, in the order
        of the list.

    Raises:
        UsageError: a folder or the list is missing, or a picture of the list or its label is.
    """
    ids = read_ids(list_file, hint)
    images = list_files(image_root, ".jpg", hint)
    labels = list_files(sem_seg_root, ".png", hint)
    label_roots = sem_seg_root
    if second_sem_seg_root is not None:
        labels = list_files(second_sem_seg_root, ".png", hint) | labels
        label_roots += f" or {second_sem_seg_root}"
    require_all(ids, images, f"pictures of {list_file} have no *.jpg in {image_root}", hint)
    require_all(ids, labels, f"pictures of {list_file} have no *.png in {label_roots}", hint)
    return make_records([images[key] for key in ids], [labels[key] for key in ids])
