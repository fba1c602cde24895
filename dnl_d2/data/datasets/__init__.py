"""Datasets. Importing this package registers all of them with detectron2."""

from dnl_d2.data.datasets import camvid as _camvid  # noqa: F401
from dnl_d2.data.datasets.folder import load_sem_seg_folder, register_sem_seg_folder
from dnl_d2.data.datasets.generated import generate_dataset

__all__ = ["generate_dataset", "load_sem_seg_folder", "register_sem_seg_folder"]
