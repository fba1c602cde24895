"""Small runs of both config systems on the generated dataset."""

import logging
import os
from argparse import Namespace

import pytest
from detectron2.utils import logger

from dnl_d2.engine import load_config

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "camvid")
STEM = os.path.join(CONFIGS, "dnl_r18w32-d8_4k_camvid-240x320")
YAML_OPTIONS = {
    "DATASETS.TRAIN": "('generated_sem_seg_train',)",
    "DATASETS.TEST": "('generated_sem_seg_val',)",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 8,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "INPUT.RESIZE.BASE_SIZE": "()",
    "INPUT.CROP.SIZE": "[64, 64]",
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.MAX_ITER": 20,
    "SOLVER.AMP.ENABLED": False,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.EVAL_PERIOD": 0,
}
LAZY_OPTIONS = {
    "dataloader.train.dataset.names": "generated_sem_seg_train",
    "dataloader.test.dataset.names": "generated_sem_seg_val",
    "dataloader.train.mapper.dataset_ignore_label": 255,
    "dataloader.train.mapper.augmentations.base_size": "null",
    "dataloader.train.mapper.augmentations.crop_size": "[64,64]",
    "dataloader.train.num_workers": 0,
    "dataloader.test.num_workers": 0,
    "model.backbone.stem_out_channels": 16,
    "model.backbone.res2_out_channels": 16,
    "model.sem_seg_head.input_shape.res4.channels": 64,
    "model.sem_seg_head.input_shape.res5.channels": 128,
    "model.sem_seg_head.channels": 32,
    "model.sem_seg_head.num_classes": 8,
    "train.max_iter": 20,
    "train.amp.enabled": "false",
    "train.eval_period": 0,
    "train.log_period": 5,
}


@pytest.fixture
def environment(datasets, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    yield
    for name in ("fvcore", "detectron2", "dnl_d2"):  # default_setup adds one handler per run
        for handler in logging.getLogger(name).handlers[:]:
            logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)
    for cache in (logger.setup_logger, logger._cached_log_stream):
        cache.cache_clear()  # a later run may have the name of a folder that is gone


def yaml_config(folder, **more):
    options = YAML_OPTIONS | {"OUTPUT_DIR": str(folder)}
    options |= {key.replace("__", "."): value for key, value in more.items()}
    return load_config(STEM + ".yaml", [str(x) for pair in options.items() for x in pair])


def lazy_config(folder, **more):
    options = LAZY_OPTIONS | {"train.output_dir": str(folder)}
    options |= {key.replace("__", "."): value for key, value in more.items()}
    return load_config(STEM + ".py", [f"{k}={v}" for k, v in options.items()])


def arguments(**more):
    return Namespace(**({"eval_only": False, "resume": False, "config_file": ""} | more))
