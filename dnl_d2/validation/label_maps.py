"""A look at every file of a dataset before training starts."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress

from dnl_d2.data.images import image_size, load_picture
from dnl_d2.data.labels import checked_label
from dnl_d2.data.mapper import require_same_size
from dnl_d2.errors import UsageError

_logger = logging.getLogger(__name__)


def check_sem_seg_dataset(
    dicts: Sequence[dict],
    *,
    num_classes: int,
    ignore_label: int,
    name: str,
    max_label_files: int = 2000,
    max_image_files: int = 500,
) -> None:
    """Fails now, in one line, on what would otherwise fail in the middle of training.

    The sizes of every image and label are compared by their headers; labels and images are decoded
    up to a number, evenly spaced over the dataset where it has more.

    Args:
        dicts: detectron2 dataset dicts with file_name and sem_seg_file_name.
        num_classes: number of classes of the model.
        ignore_label: the value the dataset ignores; 255 is ignored as well.
        name: name of the dataset, for the messages.
        max_label_files: how many labels are decoded and their values checked.
        max_image_files: how many images are decoded.

    Raises:
        UsageError: the dataset is empty, or a file is missing, unreadable, of the wrong size or
            holds a value that is no class; names the first such file and the number of others.
    """
    if not dicts:
        raise UsageError(f"dataset {name} is empty: give it at least one image with its label")

    def check_values(record: dict) -> None:
        checked_label(
            record["sem_seg_file_name"], num_classes=num_classes, ignore_label=ignore_label
        )

    def check_pixels(record: dict) -> None:
        load_picture(record["file_name"])

    errors = _errors(_check_sizes, dicts)
    # A file whose header failed is counted once.
    sound = list(compress(dicts, (error is None for error in errors)))
    labels = _evenly_spaced(sound, max_label_files)
    images = _evenly_spaced(sound, max_image_files)
    if len(labels) < len(sound) or len(images) < len(sound):
        _logger.info(
            "Dataset %s: sizes of all %d pairs checked, contents of %d labels and %d images",
            name, len(dicts), len(labels), len(images),
        )  # fmt: skip
    errors += _errors(check_values, labels) + _errors(check_pixels, images)
    found = [error for error in errors if error is not None]
    if found:
        others = f" (and {len(found) - 1} more to correct)" if len(found) > 1 else ""
        raise UsageError(f"dataset {name}: {found[0]}{others}")


def _check_sizes(record: dict) -> None:
    image, label = record["file_name"], record.get("sem_seg_file_name")
    if label is None:
        raise UsageError(f"image {image} has no label (sem_seg_file_name): add one")
    require_same_size(image, image_size(image), label, image_size(label, kind="label"))


def _errors(check: Callable[[dict], None], records: Sequence[dict]) -> list[UsageError | None]:
    def attempt(record: dict) -> UsageError | None:
        try:
            check(record)
        except UsageError as error:
            return error
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(attempt, records))


def _evenly_spaced(records: Sequence[dict], count: int) -> Sequence[dict]:
    if len(records) <= count:
        return records
    return [records[i * len(records) // count] for i in range(count)]
