"""Data: datasets, augmentation, the mapper.

Importing this package registers all datasets with detectron2.
"""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.data.augmentation import (
    PhotometricDistortion,
    sem_seg_augmentations,
    test_augmentations,
)
from dnl_d2.data.datasets import (
    load_sem_seg_folder,
    register_coco_dataset,
    register_sem_seg_folder,
)
from dnl_d2.data.images import read_image, to_array
from dnl_d2.data.labels import evaluation_label_reader, read_label
from dnl_d2.data.mapper import SemSegMapper
from dnl_d2.data.resize import MultiScaleFlip, RandomResize

__all__ = [
    "MultiScaleFlip",
    "PhotometricDistortion",
    "RandomResize",
    "SemSegMapper",
    "evaluation_label_reader",
    "load_sem_seg_folder",
    "read_image",
    "read_label",
    "register_coco_dataset",
    "register_sem_seg_folder",
    "sem_seg_augmentations",
    "test_augmentations",
    "to_array",
]
