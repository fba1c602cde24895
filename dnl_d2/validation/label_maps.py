"""A look at every file of a dataset before training starts."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import compress

from dnl_d2.data.images import image_size, is_dim, is_turned, load_picture
from dnl_d2.data.labels import checked_label
from dnl_d2.data.mapper import require_same_size
from dnl_d2.errors import UsageError
from dnl_d2.validation.findings import Finding
from dnl_d2.validation.judgements import image_warning, judge_labels, judge_variety
from dnl_d2.validation.labelled_sets import LabelledSet
from dnl_d2.validation.scan import LabelFacts, count_values, palette_colors
from dnl_d2.validation.summary import SetSummary

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadLabels:
    """The labels of a dataset that were read.

    Args:
        summary: what they hold.
        count: how many they are.
        every: whether the dataset has no others.
    """

    summary: SetSummary
    count: int
    every: bool


def check_sem_seg_dataset(
    dicts: Sequence[dict],
    *,
    num_classes: int,
    ignore_label: int,
    name: str,
    test: bool = False,
    max_label_files: int = 2000,
    max_image_files: int = 500,
) -> ReadLabels:
    """Fails now, in one line, on what would fail in the middle of training or make it mean nothing.

    The sizes of every image and label are compared by their headers; labels and images are decoded
    up to a number, evenly spaced over the dataset where it has more. What they hold is judged as
    by :func:`~dnl_d2.validation.inspect_sets`; warnings are logged.

    Args:
        dicts: detectron2 dataset dicts with file_name and sem_seg_file_name.
        num_classes: number of classes of the model.
        ignore_label: the value the dataset ignores; 255 is ignored as well.
        name: name of the dataset, for the messages.
        test: whether the dataset is for evaluation, and its labels are judged here; those of
            training sets are judged together by :func:`judge_training_labels`.
        max_label_files: how many labels are decoded and their values checked.
        max_image_files: how many images are decoded.

    Raises:
        UsageError: the dataset is empty, or a file is missing, unreadable, of the wrong size or
            holds a value that is no class; names the first such file and the number of others. Or
            all labels for evaluation are ignored.
    """
    if not dicts:
        raise UsageError(f"dataset {name} is empty: give it at least one image with its label")

    counted: dict[str, LabelFacts] = {}

    def check_values(record: dict) -> None:
        path = record["sem_seg_file_name"]
        label = checked_label(path, num_classes=num_classes, ignore_label=ignore_label)
        values = dict(count_values(label))
        palette = palette_colors(load_picture(path, kind="label", header_only=True), values)
        counted[path] = LabelFacts(size=label.shape, values=values, palette=palette)

    turned: set[str] = set()
    dim: set[str] = set()

    def check_pixels(record: dict) -> None:
        picture = load_picture(record["file_name"])
        if is_turned(picture):
            turned.add(record["file_name"])
        if is_dim(picture):
            dim.add(record["file_name"])

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
    for code, files in (("turned", turned), ("dim", dim)):
        if files:
            line = image_warning(code, sorted(files)).line(name)
            _logger.warning("dataset %s", line.removeprefix("warning: "))
    source = LabelledSet(name, [], [str(value) for value in range(num_classes)], ignore_label)
    summary, empty = (SetSummary(source, num_classes) for _ in range(2))
    for path in sorted(counted):
        summary.add_label(path, counted[path])
    read = ReadLabels(summary, len(counted), every=len(labels) == len(dicts))
    if test:
        _tell(read, judge_labels(summary, empty))
    return read


def judge_training_labels(sets: Sequence[ReadLabels]) -> None:
    """Judges what the labels of all training sets hold together: some may have one class alone.

    Raises:
        UsageError: nothing can be learned from them: they hold one class, or none.
    """
    first, *others = (read.summary for read in sets)
    name = " + ".join(read.summary.source.name for read in sets)
    total = SetSummary(replace(first.source, name=name), first.num_classes)
    for summary in (first, *others):
        total.values.update(summary.values)
        for value, colors in summary.palette.items():
            total.palette[value] = colors | total.palette[value]
        total.pixels += summary.pixels
        total.ignored += summary.ignored
    read = ReadLabels(total, sum(read.count for read in sets), all(read.every for read in sets))
    _tell(read, [*judge_labels(total, total), *judge_variety([total], first.num_classes or 0)])


def _tell(read: ReadLabels, findings: Sequence[Finding]) -> None:
    """Raises on what makes figures meaningless; in some of the labels only, it may be chance."""
    name, where = read.summary.source.name, "" if read.every else f" ({read.count} labels)"
    for finding in findings:
        if finding.level == "error" and read.every:
            raise UsageError(f"dataset {name}: {finding.text}")
        _logger.warning("dataset %s%s: %s", name, where, finding.text)


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
