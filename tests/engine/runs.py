"""Small runs of both config systems on the generated dataset."""

import logging
import os
from argparse import Namespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import logger

from dnl_d2.engine import load_config
from dnl_d2.synthetic import generate_instances

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "camvid")
STEM = os.path.join(CONFIGS, "dnl_r18w32-d8_4k_camvid-240x320")
SMALL_YAML = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "INPUT.RESIZE.BASE_SIZE": "()",
    "INPUT.CROP.SIZE": "[64, 64]",
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.MAX_ITER": 20,
    "SOLVER.AMP.ENABLED": False,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.EVAL_PICTURES": 0,
}
YAML_OPTIONS = SMALL_YAML | {
    "DATASETS.TRAIN": "('generated_sem_seg_train',)",
    "DATASETS.TEST": "('generated_sem_seg_val',)",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 8,
}
SMALL_LAZY = {
    "dataloader.train.mapper.augmentations.base_size": "null",
    "dataloader.train.mapper.augmentations.crop_size": "[64,64]",
    "dataloader.train.num_workers": 0,
    "dataloader.test.num_workers": 0,
    "model.backbone.stem_out_channels": 16,
    "model.backbone.res2_out_channels": 16,
    "model.sem_seg_head.input_shape.res4.channels": 64,
    "model.sem_seg_head.input_shape.res5.channels": 128,
    "model.sem_seg_head.channels": 32,
    "lr_multiplier.iterations": 0,
    "train.max_iter": 20,
    "train.amp.enabled": "false",
    "train.eval_period": 0,
    "train.eval_pictures": 0,
    "train.log_period": 5,
}
LAZY_OPTIONS = SMALL_LAZY | {
    "dataloader.train.dataset.names": "generated_sem_seg_train",
    "dataloader.test.dataset.names": "generated_sem_seg_val",
    "dataloader.train.mapper.dataset_ignore_label": 255,
    "model.sem_seg_head.num_classes": 8,
}
# Detectors on generated instances, with some detections to evaluate.
SMALL_DETECTOR = {
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": "()",
    "TEST.EVAL_PERIOD": 2,
    "TEST.EVAL_PICTURES": 0,
    "TEST.AUG.MIN_SIZES": "(64, 96)",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
}
# Words for what the two config systems call differently: the YAML key and the LazyConfig key.
KEYS = {
    "batch": ("SOLVER.IMS_PER_BATCH", "dataloader.train.total_batch_size"),
    "eval_period": ("TEST.EVAL_PERIOD", "train.eval_period"),
    "length": ("SOLVER.MAX_ITER", "train.max_iter"),
    "output": ("OUTPUT_DIR", "train.output_dir"),
    "parts": ("SOLVER.ACCUMULATE", "train.accumulate"),
    "period": ("SOLVER.CHECKPOINT_PERIOD", "train.checkpointer.period"),
    "rate": ("SOLVER.BASE_LR", "optimizer.lr"),
    "reference": ("SOLVER.REFERENCE_BATCH_SIZE", "train.reference_batch_size"),
    "weights": ("MODEL.WEIGHTS", "train.init_checkpoint"),
    "width": ("MODEL.SEM_SEG_HEAD.CONVS_DIM", "model.sem_seg_head.channels"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A ``$DETECTRON2_DATASETS`` with a few generated instances."""
    folder = tmp_path_factory.mktemp("datasets")
    generate_instances(str(folder / "generated_instances"), train=4, val=2)
    return folder


@pytest.fixture
def environment(datasets, monkeypatch):
    """The generated dataset; takes back what a run changes, and what datasets it registers."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    known = DatasetCatalog.list()
    yield
    forget(*(name for name in DatasetCatalog.list() if name not in known))
    for name in ("fvcore", "detectron2", "dnl_d2"):  # default_setup adds one handler per run
        for handler in logging.getLogger(name).handlers[:]:
            logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)
    for cache in (logger.setup_logger, logger._cached_log_stream):
        cache.cache_clear()  # a later run may have the name of a folder that is gone


def forget(*names):
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def as_yaml(options, **more):
    """Overrides of a YAML config; ``more`` by keys with ``__`` for points, or by words of KEYS."""
    options = options | {_key(word, 0): value for word, value in more.items()}
    return [str(x) for pair in options.items() for x in pair]


def as_lazy(options, **more):
    """The same for a LazyConfig."""
    options = options | {_key(word, 1): value for word, value in more.items()}
    return [f"{key}={value}" for key, value in options.items()]


def _key(word, number):
    return KEYS[word][number] if word in KEYS else word.replace("__", ".")


def yaml_config(folder, **more):
    return load_config(STEM + ".yaml", as_yaml(YAML_OPTIONS, **{"output": folder, **more}))


def lazy_config(folder, **more):
    return load_config(STEM + ".py", as_lazy(LAZY_OPTIONS, **{"output": folder, **more}))


def arguments(**more):
    return Namespace(**({"eval_only": False, "resume": False, "config_file": ""} | more))
