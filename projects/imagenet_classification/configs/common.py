"""ImageNet with a ResNet-50 that strides in its first 1x1 convolutions, as in the published table.

120 epochs of 1,281,167 images in batches of 256, the rate along a cosine from 0.1 after 5 epochs of
warm-up.
"""

import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf

from dnl_d2.config.train_defaults import TRAIN
from dnl_d2.engine import optimizer_params, warmed_up
from dnl_d2.evaluation import build_evaluator
from dnl_d2.modeling import build_context_resnet
from dnl_d2_imagenet import ClassificationMapper, ImageClassifier, image_folder

model = L(ImageClassifier)(
    backbone=L(build_context_resnet)(
        depth=50,
        stride_in_1x1=True,
        norm="BN",
        out_features=["res5"],
        mask_padding=False,  # crops have none
    ),
    feature="res5",
    num_classes=1000,
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    label_smoothing=0.1,
)

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=L(image_folder)(names="imagenet_train", folder="imagenet/train"),
    mapper=L(ClassificationMapper)(is_train=True, size=224),
    total_batch_size=256,
    aspect_ratio_grouping=False,
    num_workers=8,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(image_folder)(
        names="imagenet_val",
        folder="imagenet/val",
        classes_from="${dataloader.train.dataset.folder}",
    ),
    mapper=L(ClassificationMapper)(is_train=False, size=224, resize=256),
    batch_size=64,
    num_workers=4,
)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${dataloader.test.dataset.names}", output_dir="${train.output_dir}/inference"
)

optimizer = L(torch.optim.SGD)(
    params=L(optimizer_params)(weight_decay_norm="${..weight_decay}", no_decay=[]),
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(warmed_up)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    factor=0.01,
    iterations=25000,
    max_iter="${train.max_iter}",
)

train = OmegaConf.create(TRAIN)
train.max_iter = 600000
train.checkpointer.period = 5000
train.eval_period = 25000
train.log_period = 100
train.output_dir = "output/imagenet/r50"
