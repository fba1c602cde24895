"""Datasets of a folder for each class."""

import logging
import os
from collections.abc import Iterable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.errors import UsageError

_log = logging.getLogger(f"dnl_d2.{__name__}")  # a run logs what is under dnl_d2
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
_NAMED = 5


def image_folder(names: str, folder: str, *, classes_from: str | None = None) -> list[dict]:
    """The images of a folder with a folder for each class, which are numbered in order of names.

    Args:
        names: what the dataset is registered as (LazyConfigs call it so). A run must know it before
            it reads the images: one of those below, or one given to :func:`declare`.
        folder: such as ``imagenet/train``; if it is relative, below ``$DETECTRON2_DATASETS``.
        classes_from: the folder whose classes these are, if it is another: that of the training.

    Returns:
        Records with ``file_name`` and ``category_id``. Files that are no pictures by their
        endings are not among them.

    Raises:
        UsageError: a folder does not exist or has no classes, a class of it is not among those of
            ``classes_from``, or it has no picture at all.
    """
    folder = below_datasets(folder)
    classes = list_classes(folder) if classes_from is None else _classes_of(classes_from, folder)
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in list_classes(folder) if name not in numbers]
    if unknown:
        raise UsageError(
            f"dataset {names}: {folder} has {_some(unknown)}, which "
            f"{below_datasets(classes_from or '')} has not: the model would not know the class"
        )
    records = [
        {"file_name": path, "category_id": number}
        for name, number in numbers.items()
        for path in _pictures(os.path.join(folder, name))
    ]
    if not records:
        raise UsageError(
            f"dataset {names}: there is no picture ({', '.join(EXTENSIONS)}) in {folder}"
        )
    empty = set(numbers.values()) - {record["category_id"] for record in records}
    if empty:
        _log.warning(
            f"dataset {names}: {folder} has no picture of {len(empty)} of {len(classes)} classes: "
            f"{_some([classes[number] for number in sorted(empty)])}"
        )
    register(names, records, classes)
    return records


def _classes_of(other: str, folder: str) -> list[str]:
    try:
        return list_classes(below_datasets(other))
    except UsageError as error:
        raise UsageError(
            f"{error}. If {folder} has all classes, it can number them itself: "
            "dataloader.test.dataset.classes_from=null"
        ) from error


def declare(name: str, folder: str, classes_from: str | None = None) -> None:
    """Registers a dataset whose folder is read when it is asked for."""
    DatasetCatalog.register(name, lambda: image_folder(name, folder, classes_from=classes_from))
    MetadataCatalog.get(name).evaluator_type = "classification"


def register(name: str, records: Iterable[dict], classes: Sequence[str]) -> None:
    """Registers a dataset with Detectron2, in place of one of its name."""
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(classes=list(classes), evaluator_type="classification")


def below_datasets(folder: str) -> str:
    """A path as it is, if it is absolute, else below ``$DETECTRON2_DATASETS``."""
    folder = os.path.expanduser(folder)
    return os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), folder)


def list_classes(folder: str) -> list[str]:
    """Names of the folders in a folder, in order.

    Raises:
        UsageError: there is none, or no such folder.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be read ({error.strerror}): put a folder for each class there, or "
            "name another (dataloader.train.dataset.folder, dataloader.test.dataset.folder)"
        ) from error
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise UsageError(f"{folder} has no folders, one for each class, but {_kinds(folder)}")
    return names


def _kinds(folder: str) -> str:
    files = os.listdir(folder)
    tars = [name for name in files if name.endswith(".tar")]
    if tars:
        return f"{len(tars)} tar files: read shards with tar_shards, unpack others"
    return f"{len(files)} files"


def _pictures(folder: str) -> list[str]:
    """Paths of pictures, also in folders below, in order."""
    if not os.path.isdir(folder):
        return []
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


# Under these names Detectron2 finds the datasets of the configs where they are by default.
for _name in ("imagenet", "pairs"):
    declare(f"{_name}_train", f"{_name}/train")
    declare(f"{_name}_val", f"{_name}/val", classes_from=f"{_name}/train")
