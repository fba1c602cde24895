"""Datasets of one's own in COCO's form: a folder of images and a JSON file."""

import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.registration import dataset_path
from dnl_d2.errors import UsageError

# What Detectron2 notes as it reads a file; it refuses to note anything else later.
_READ_FROM_FILE = ("thing_classes", "thing_dataset_id_to_contiguous_id")


def register_coco_dataset(name: str, *, images: str, json: str) -> None:
    """Registers a dataset for detectors, in place of another of that name.

    Classes are the categories of the file in the order of their ids, which may have gaps.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        images: the folder that ``file_name`` in the file starts from, absolute or relative to
            ``$DETECTRON2_DATASETS``, which is read when the dataset is loaded.
        json: the annotation file, likewise.
    """
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    meta = MetadataCatalog.get(name)

    def set_paths() -> None:
        # Past Metadata's write-once check: $DETECTRON2_DATASETS may change between loads.
        vars(meta).update(json_file=dataset_path(json), image_root=dataset_path(images))
        for key in _READ_FROM_FILE:
            vars(meta).pop(key, None)

    def load() -> list[dict]:
        set_paths()
        if not PathManager.isfile(meta.json_file):
            wrong = "is a folder" if PathManager.isdir(meta.json_file) else "does not exist"
            below = "" if os.path.isabs(json) else "; relative paths start at $DETECTRON2_DATASETS"
            raise UsageError(f"dataset {name}: its annotation file {meta.json_file} {wrong}{below}")
        return load_coco_json(meta.json_file, meta.image_root, name)

    set_paths()
    meta.set(evaluator_type="coco", set_paths=set_paths)
    DatasetCatalog.register(name, load)
