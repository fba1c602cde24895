"""Loaders of a semantic-segmentation dataset; leaves set names, classes and sizes."""

from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from omegaconf import OmegaConf

from dnl_d2.data import MultiScaleFlip, SemSegMapper, sem_seg_augmentations, test_augmentations
from dnl_d2.evaluation import build_evaluator

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="???", filter_empty=False),
    mapper=L(SemSegMapper)(
        is_train=True,
        augmentations=L(sem_seg_augmentations)(
            base_size=(2048, 1024),
            ratio_range=(0.5, 2.0),
            crop_size=(512, 1024),
            max_category_area=0.75,
            ignore_value="${..ignore_value}",
            image_format="${..image_format}",
        ),
        image_format="RGB",
        ignore_value=255,
        dataset_ignore_label=255,
        num_classes="${model.sem_seg_head.num_classes}",
        cache_dir="",  # a folder on a fast disk: pictures are kept there decoded
    ),
    total_batch_size=8,
    aspect_ratio_grouping=False,
    num_workers=4,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="???", filter_empty=False),
    mapper=L(SemSegMapper)(
        is_train=False,
        augmentations=L(test_augmentations)(
            base_size="${dataloader.train.mapper.augmentations.base_size}"
        ),
        multi_scale_flip=L(MultiScaleFlip)(
            enabled=False,  # True with --eval-only: the published ms+flip
            base_size="${..augmentations.base_size}",
            scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
            flip=True,
        ),
        image_format="${dataloader.train.mapper.image_format}",
        num_classes="${dataloader.train.mapper.num_classes}",
    ),
    num_workers=2,
)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${dataloader.test.dataset.names}",
    output_dir="${train.output_dir}/inference",
)
