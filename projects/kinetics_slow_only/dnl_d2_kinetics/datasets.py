"""Datasets of videos for Detectron2's catalogs."""

import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.lists import load_kinetics, load_list, read_classes


def register_videos(
    name: str, *, annotations: str, videos: str, classes: Sequence[str] | str
) -> None:
    """Registers a dataset of videos that have one class each.

    Paths are absolute or relative to ``$DETECTRON2_DATASETS``; all is read when the dataset is
    loaded, and the names of classes then are in its metadata.

    Args:
        name: for ``dataloader.*.dataset.names``.
        annotations: a CSV file as Kinetics', see :func:`dnl_d2_kinetics.lists.load_kinetics`, or a
            text file, see :func:`dnl_d2_kinetics.lists.load_list`.
        videos: the folder of videos.
        classes: names of the classes 0, 1, ..., or a file, see
            :func:`dnl_d2_kinetics.lists.read_classes`.

    Raises:
        UsageError: there is a dataset of that name.
    """
    if name in DatasetCatalog.list():
        raise UsageError(f"there is a dataset {name!r} already: register videos by another name")

    def load() -> list[dict[str, Any]]:
        known = read_classes(_in_datasets(classes)) if isinstance(classes, str) else list(classes)
        read = load_kinetics if annotations.endswith(".csv") else load_list
        records = read(_in_datasets(annotations), _in_datasets(videos), known)
        MetadataCatalog.get(name).classes = known
        return records

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).evaluator_type = "classification"


def _in_datasets(path: str) -> str:
    return os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), path)


for _split in ("train", "val"):
    register_videos(
        f"kinetics400_{_split}",
        annotations=f"kinetics400/{_split}.csv",
        videos=f"kinetics400/{_split}",
        classes="kinetics400/train.csv",
    )
    register_videos(
        f"generated_motion_{_split}",
        annotations=f"generated_motion/{_split}.txt",
        videos="generated_motion",
        classes="generated_motion/classes.txt",
    )
