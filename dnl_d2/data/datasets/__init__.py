"""Datasets. Importing this package registers all of them with detectron2."""

from dnl_d2.data.datasets import ade20k as _ade20k  # noqa: F401
from dnl_d2.data.datasets import camvid as _camvid  # noqa: F401
from dnl_d2.data.datasets import cityscapes as _cityscapes  # noqa: F401
from dnl_d2.data.datasets import cityscapes_instances as _cityscapes_instances  # noqa: F401
from dnl_d2.data.datasets import generated as _generated  # noqa: F401
from dnl_d2.data.datasets import pascal_context as _pascal_context  # noqa: F401
from dnl_d2.data.datasets import voc as _voc  # noqa: F401
from dnl_d2.data.datasets.coco import register_coco_dataset
from dnl_d2.data.datasets.folder import load_sem_seg_folder, register_sem_seg_folder

__all__ = [
    "load_sem_seg_folder",
    "register_coco_dataset",
    "register_sem_seg_folder",
]
