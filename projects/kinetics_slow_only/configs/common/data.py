"""Loaders of videos; leaves the names of the sets."""

from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from omegaconf import OmegaConf

from dnl_d2.evaluation import build_evaluator
from dnl_d2_kinetics import TestClipMapper, TrainClipMapper

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="???", filter_empty=False),
    mapper=L(TrainClipMapper)(
        num_frames=8, stride=8, rate=30.0, short_side=(256, 320), crop_size=224, flip=True
    ),
    total_batch_size=128,
    aspect_ratio_grouping=False,
    num_workers=8,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="???", filter_empty=False),
    mapper=L(TestClipMapper)(
        num_frames="${dataloader.train.mapper.num_frames}",
        stride="${dataloader.train.mapper.stride}",
        rate="${dataloader.train.mapper.rate}",
        short_side=256,
        crop_size=256,
        num_clips=10,
        num_crops=3,
    ),
    num_workers=4,
)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${dataloader.test.dataset.names}",
    output_dir="${train.output_dir}/inference",
)
