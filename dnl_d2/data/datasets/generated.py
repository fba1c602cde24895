"""The generated datasets, which :mod:`dnl_d2.synthetic` draws: names, classes and colours."""

import os

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from dnl_d2.data.datasets.folder import register_sem_seg_folder
from dnl_d2.data.datasets.registration import dataset_path
from dnl_d2.errors import UsageError

SPLITS = ("train", "val")
SEM_SEG_COLORS = {
    "background": (60, 60, 60),
    "texture_a": (31, 119, 180),
    "texture_b": (255, 127, 14),
    "paired": (255, 255, 255),
    "red": (214, 39, 40),
    "green": (127, 214, 40),
    "cyan": (60, 220, 220),
    "violet": (140, 60, 220),
}
INSTANCE_COLORS = {
    "beacon_a": (174, 199, 232),
    "beacon_b": (255, 187, 120),
    "texture_a": (31, 119, 180),
    "texture_b": (255, 127, 14),
    "paired": (255, 255, 255),
    "single": (214, 39, 40),
    "dotted": (60, 220, 220),
}

_ROOT = "generated_instances"

for _split in SPLITS:
    register_sem_seg_folder(
        f"generated_sem_seg_{_split}",
        f"generated/{_split}",
        f"generated/{_split}annot",
        classes=list(SEM_SEG_COLORS),
        colors=list(SEM_SEG_COLORS.values()),
    )


def _register(split: str) -> None:
    """$DETECTRON2_DATASETS is read when the dataset is loaded."""
    name = f"generated_instances_{split}"
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    meta = MetadataCatalog.get(name)
    meta.set(evaluator_type="coco", thing_classes=list(INSTANCE_COLORS))
    meta.set(thing_colors=[list(color) for color in INSTANCE_COLORS.values()])

    def paths() -> dict[str, str]:
        root = dataset_path(_ROOT)
        found = {
            "json_file": os.path.join(root, "annotations", f"instances_{split}.json"),
            "image_root": os.path.join(root, split),
        }
        vars(meta).update(found)  # past Metadata's write-once check
        return found

    meta.set(set_paths=paths)  # for the check before training

    def load() -> list[dict]:
        found = paths()
        if not os.path.isfile(found["json_file"]):
            raise UsageError(
                f"dataset {name}: there is no {found['json_file']}: "
                "write it with tools/generate_dataset.py instances"
            )
        return load_coco_json(**found, dataset_name=name)

    paths()
    DatasetCatalog.register(name, load)


for _split in SPLITS:
    _register(_split)
