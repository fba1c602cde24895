"""The generated datasets, which :mod:`dnl_d2.synthetic` draws: names, classes and colours."""

from dnl_d2.data.datasets.coco import register_coco_dataset
from dnl_d2.data.datasets.folder import register_sem_seg_folder

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

for _split in SPLITS:
    register_sem_seg_folder(
        f"generated_sem_seg_{_split}",
        f"generated/{_split}",
        f"generated/{_split}annot",
        classes=list(SEM_SEG_COLORS),
        colors=list(SEM_SEG_COLORS.values()),
    )
    register_coco_dataset(
        f"generated_instances_{_split}",
        images=f"generated_instances/{_split}",
        json=f"generated_instances/annotations/instances_{_split}.json",
        classes=list(INSTANCE_COLORS),
        colors=list(INSTANCE_COLORS.values()),
        hint="write it with tools/generate_dataset.py instances",
    )
