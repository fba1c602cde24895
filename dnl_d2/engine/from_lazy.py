"""A LazyConfig as a :class:`~dnl_d2.engine.spec.RunSpec`: the only reader of its run's keys."""

import copy
import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from detectron2.config import get_cfg, instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dnl_d2.config.batch_size import scale_schedule
from dnl_d2.config.rules import check_lazy, select_lazy
from dnl_d2.config.train_defaults import fill_train
from dnl_d2.data import SemSegMapper, test_augmentations
from dnl_d2.data.naming_mapper import NamingMapper
from dnl_d2.engine.environment import fit_sync_batch_norm, usable_device
from dnl_d2.engine.lazy_task import FLIP_INDICES, MAPPER, classifies, dataset_names, task_of_lazy
from dnl_d2.engine.optimizer import clip_total_norm
from dnl_d2.engine.schedule import never_reached
from dnl_d2.engine.spec import ConfigKeys, DetectorScales, MultiScale, RunSpec, WandbOptions
from dnl_d2.errors import UsageError, building
from dnl_d2.modeling import SameSizeBatches
from dnl_d2.validation.task import Task

KEYS = ConfigKeys(
    weights="train.init_checkpoint",
    output_dir="train.output_dir",
    train_sets="dataloader.train.dataset.names",
    test_sets="dataloader.test.dataset.names",
    amp_dtype="train.amp.dtype",
    accumulate="train.accumulate",
    compile="train.compile",
    cudnn="train.cudnn_benchmark",
    find_unused_parameters="train.ddp.find_unused_parameters",
    pixel_mean="model.pixel_mean",
    skip_nonfinite="train.skip_nonfinite",
    wandb="train.wandb.project",
)
_BATCH_SIZE = "dataloader.train.total_batch_size"
_RATES = ("optimizer.lr",)
# Where multi_step and warmed_up count iterations; else lr_multiplier is a function of progress.
_WARMUP, _STEPS = "lr_multiplier.iterations", "lr_multiplier.scheduler.milestones"
_ITERATIONS = ("train.max_iter", "train.checkpointer.period", "train.eval_period")
_SEGMENTOR_SCALES = "dataloader.test.mapper.multi_scale_flip.enabled"
_DETECTOR_SCALES = "dataloader.test_augmentation"


def from_lazy(cfg: DictConfig, *, train: bool) -> RunSpec:
    """The run that a LazyConfig describes.

    Args:
        cfg: it stays as it is; what its ``train`` lacks is as in
            :mod:`dnl_d2.config.train_defaults`.
        train: whether it trains; otherwise it only evaluates.

    Raises:
        UsageError: a value that cannot be meant, or something that every run needs is missing.
    """
    cfg = copy.deepcopy(cfg)
    fill_train(cfg)
    check_lazy(cfg)
    _check_evaluated(cfg)
    cfg.train.device = usable_device(cfg.train.device)
    note = scale_lazy(cfg) if train else ""
    fitted = copy.deepcopy(cfg)
    if train and select_lazy(cfg, _SEGMENTOR_SCALES):
        OmegaConf.update(cfg, _SEGMENTOR_SCALES, False)  # during training at a single scale
    settings, task = cfg.train, task_of_lazy(cfg)
    batch_size = select_lazy(cfg, _BATCH_SIZE)
    if train and batch_size is None:
        raise UsageError(f"{_BATCH_SIZE} is missing: set the number of images per iteration")
    return RunSpec(
        config=fitted,
        keys=KEYS,
        output_dir=settings.output_dir,
        device=settings.device,
        notes=(note,) if note else (),
        warnings=never_reached(
            ("train.max_iter", settings.max_iter),
            (_WARMUP, select_lazy(cfg, _WARMUP)),
            (_STEPS, select_lazy(cfg, _STEPS)),
        ),
        seed=settings.seed,
        model_class=_model_class(cfg),
        build_model=lambda: _build_model(cfg),
        weights=settings.init_checkpoint,
        channel_order=_channel_order(cfg),
        task=task,
        train_sets=dataset_names(cfg, "train"),
        test_sets=dataset_names(cfg, "test"),
        max_checked_files=settings.check_labels if task.is_known else None,
        build_train_loader=lambda: _build_train_loader(cfg, task),
        build_train_mapper=lambda: instantiate(cfg.dataloader.train.mapper),
        build_test_mapper=lambda: _build_test_mapper(cfg),
        evaluate=partial(_evaluate, cfg) if select_lazy(cfg, "dataloader.test") else None,
        multi_scale=_multi_scale(fitted),
        eval_precision=settings.eval_precision,
        batch_size=batch_size or 0,
        scaled=bool(settings.reference_batch_size),
        accumulate=settings.accumulate,
        amp=settings.amp.enabled,
        amp_dtype=settings.amp.dtype,
        skip_nonfinite=settings.skip_nonfinite,
        channels_last=settings.channels_last,
        compile=settings.compile,
        build_optimizer=lambda model: _build_optimizer(cfg, model),
        build_schedule=lambda _: instantiate(cfg.lr_multiplier),
        rates=tuple(rate for key in _RATES if (rate := select_lazy(cfg, key)) is not None),
        warms_up=select_lazy(cfg, _WARMUP) is not None,
        ddp=settings.ddp,
        max_iter=settings.max_iter,
        checkpoints={
            **settings.checkpointer,
            "max_to_keep": settings.checkpointer.get("max_to_keep") or None,
        },
        eval_period=settings.eval_period,
        log_period=settings.log_period,
        eval_pictures=0 if classifies(cfg) else settings.eval_pictures,
        wandb=WandbOptions(settings.wandb.project, settings.wandb.name),
    )


def scale_lazy(cfg: DictConfig) -> str:
    """Changes a config to its total_batch_size instead of its reference_batch_size.

    Returns:
        What was changed, in a line; empty for nothing.

    Raises:
        UsageError: a negative reference, or a key to scale is missing.
    """
    counted = [key for key in (_WARMUP, _STEPS) if select_lazy(cfg, key) is not None]
    changes, note = scale_schedule(
        {key: select_lazy(cfg, key) for key in (*_RATES, *_ITERATIONS, *counted)},
        rates=_RATES,
        size=(_BATCH_SIZE, select_lazy(cfg, _BATCH_SIZE)),
        reference=("train.reference_batch_size", cfg.train.reference_batch_size),
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key, list(value) if isinstance(value, tuple) else value)
    return note


def _check_evaluated(cfg: DictConfig) -> None:
    """An evaluator takes one dataset, which would be found out after the training."""
    key = "dataloader.evaluator.dataset_name"
    names = select_lazy(cfg, key)
    if OmegaConf.is_list(names):
        raise UsageError(
            f"{key} (as a rule dataloader.test.dataset.names) is a list, {', '.join(names)}: give "
            "one name, without brackets; a YAML config takes several in DATASETS.TEST"
        )


def _channel_order(cfg: DictConfig) -> str | None:
    """As the mappers read images; None if the config does not say."""
    for split in ("test", "train"):
        order = select_lazy(cfg, f"dataloader.{split}.mapper.image_format")
        if order in ("RGB", "BGR"):
            return order
    return None


def _model_class(cfg: DictConfig) -> type | None:
    target = select_lazy(cfg, "model._target_")
    target = locate(target) if isinstance(target, str) else target
    return target if isinstance(target, type) else None


def _multi_scale(cfg: DictConfig) -> MultiScale | None:
    if select_lazy(cfg, _SEGMENTOR_SCALES):
        return MultiScale(_SEGMENTOR_SCALES, segmentors=True, detectors=None)
    options = select_lazy(cfg, _DETECTOR_SCALES) or {}
    if not isinstance(options, Mapping):
        raise UsageError(f"{_DETECTOR_SCALES} is {options!r}: set {_DETECTOR_SCALES}.enabled")
    options = dict(options)
    if not options.pop("enabled", False):
        return None
    known = [field.name for field in fields(DetectorScales)]
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{_DETECTOR_SCALES}.{unknown} does not exist; known: enabled, {', '.join(known)}"
        )
    augment = get_cfg().TEST.AUG
    default = {"min_sizes": augment.MIN_SIZES, "max_size": augment.MAX_SIZE, "flip": augment.FLIP}
    scales = DetectorScales(**(default | options))
    return MultiScale(f"{_DETECTOR_SCALES}.enabled", segmentors=False, detectors=scales)


def _build_model(cfg: DictConfig) -> nn.Module:
    model = instantiate(cfg.model).to(cfg.train.device)
    model = fit_sync_batch_norm(model, cfg.train.device)
    logging.getLogger(__name__).debug(f"Model:\n{model}")
    return model


def _build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    if cfg.train.clip_norm:
        clip_total_norm(optimizer, cfg.train.clip_norm)
    return optimizer


def _build_train_loader(cfg: DictConfig, task: Task) -> Iterable:
    """The loader; how mirrored keypoints are swapped the datasets tell, unless the config does."""
    keypoints = task.instances and task.instances.keypoints
    if keypoints and keypoints.flip == "horizontal" and keypoints.flip_indices is None:
        indices = create_keypoint_hflip_indices(list(dataset_names(cfg, "train")))
        OmegaConf.update(cfg, FLIP_INDICES, indices, force_add=True)
    loader = _build_loader(cfg.dataloader.train)
    if classifies(cfg):
        _check_classes(cfg)
    return loader


def _check_classes(cfg: DictConfig) -> None:
    """Now, not at the first evaluation; datasets know their classes once they are read."""
    if select_lazy(cfg, "dataloader.test") is not None:
        with building("test loader and evaluator"):
            _build_loader(cfg.dataloader.test)
            _build_evaluators(cfg)
    count = select_lazy(cfg, "model.num_classes")
    for name in (*dataset_names(cfg, "train"), *dataset_names(cfg, "test")):
        classes = MetadataCatalog.get(name).get("classes")
        if classes is not None and count is not None and len(classes) != count:
            raise UsageError(
                f"model.num_classes is {count}, and dataset {name} has {len(classes)} classes"
            )


def _build_loader(node: DictConfig) -> Iterable:
    """The loader, whose mapper names the image that it fails on."""
    options = dict(node.items())
    if OmegaConf.is_dict(options.get("mapper")):
        options["mapper"] = NamingMapper(instantiate(options["mapper"]))
    return instantiate(options)


def _build_test_mapper(cfg: DictConfig) -> Any:
    """The mapper of the test loader; without one, a segmentor's as training sees pictures."""
    if select_lazy(cfg, "dataloader.test.mapper") is not None:
        return instantiate(cfg.dataloader.test.mapper)
    train = select_lazy(cfg, MAPPER)
    if select_lazy(cfg, "model.sem_seg_head") is None or train is None:
        raise UsageError("the config has no dataloader.test.mapper, by which pictures are read")
    return SemSegMapper(
        False,
        augmentations=test_augmentations(select_lazy(train, "augmentations.base_size")),
        image_format=select_lazy(train, "image_format") or "RGB",
        num_classes=cfg.model.sem_seg_head.num_classes,
    )


def _build_evaluators(cfg: DictConfig, folder: str | None = None) -> list[DatasetEvaluator]:
    node = cfg.dataloader.evaluator
    nodes = node if OmegaConf.is_list(node) else [node]
    elsewhere = {} if folder is None else {"output_dir": folder}
    return [instantiate({**each, **elsewhere}) for each in nodes]


def _evaluate(cfg: DictConfig, model: nn.Module, folder: str | None = None) -> dict:
    with building("test loader and evaluator"):
        loader = _build_loader(cfg.dataloader.test)
        evaluators = _build_evaluators(cfg, folder)
    results = inference_on_dataset(SameSizeBatches(model), loader, evaluators)
    if comm.is_main_process():
        print_csv_format(results)
    return results
