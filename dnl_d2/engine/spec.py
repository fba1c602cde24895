"""What a run is, whichever config system it was written in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig
from torch import nn

from dnl_d2.validation.task import Task


@dataclass(frozen=True)
class ConfigKeys:
    """How a config system calls what messages name."""

    weights: str
    output_dir: str
    train_sets: str
    test_sets: str
    amp_dtype: str
    accumulate: str
    compile: str
    cudnn: str
    find_unused_parameters: str
    pixel_mean: str
    skip_nonfinite: str
    wandb: str


@dataclass(frozen=True)
class MultiScale:
    """A test at several scales, which ``--eval-only`` runs.

    Args:
        key: the config key that asks for it.
        segmentors: whether it is for segmentors, whose mapper makes the scales.
        detectors: the sizes for detectors; None if it is not for them.
    """

    key: str
    segmentors: bool
    detectors: "DetectorScales | None"


@dataclass(frozen=True)
class DetectorScales:
    """Sizes that a detector's image is predicted at.

    Args:
        min_sizes: lengths of the shorter side, in pixels.
        max_size: the most that the longer side may have.
        flip: whether mirror images are predicted too.
    """

    min_sizes: Sequence[int]
    max_size: int
    flip: bool


@dataclass(frozen=True)
class WandbOptions:
    """Where a run is recorded at Weights & Biases.

    Args:
        project: its name; empty for no record.
        name: of the run; empty for that of the output folder.
    """

    project: str = ""
    name: str = ""


@dataclass(frozen=True)
class RunSpec:
    """A run that trains or evaluates: values, and functions that build what is needed when it is.

    :mod:`~dnl_d2.engine.from_yaml` and :mod:`~dnl_d2.engine.from_lazy` fill it;
    :func:`dnl_d2.engine.run` carries it out.

    Args:
        config: what is written to the output folder, for the record.
        keys: config keys, for messages.
        output_dir: folder for logs, checkpoints and results.
        device: where the model runs.
        notes: lines for the log on how the config was fitted to this run.
        warnings: lines on what of the config may not be meant.
        seed: of all that is random; negative for another one each run.

        model_class: class of the model; None if it cannot be told before the model is built.
        build_model: the model, on its device, with initial weights.
        weights: file, address or zoo name to start from; empty for none.
        channel_order: ``RGB`` or ``BGR``, as images reach the model; None if the config is silent.

        task: what the model reads from its datasets.
        train_sets, test_sets: names of datasets.
        max_checked_files: how many files of each dataset are read before the run starts; None
            where nothing is known of what the model reads, and datasets are not looked at.
        build_train_loader: loader of batches.
        build_train_mapper: from a record to what the model is trained on.
        build_test_mapper: from a record to what the model reads in an evaluation.
        evaluate: evaluates a model on all test sets; a second argument names another folder for
            its files. Returns figures by task, or by dataset where there are several. None where
            the config has nothing to test on.
        multi_scale: the test at several scales; None if the config does not ask for it.
        eval_precision: what a model that does not train computes in, see
            :func:`dnl_d2.optimize_for_inference`.
        verify: raises where figures of an evaluation are not those that the config expects.

        batch_size: images per iteration, of all processes together.
        scaled: whether the schedule was made for ``batch_size`` (a reference batch size is set).
        accumulate: parts in which each process trains its share of a batch.
        amp, amp_dtype: whether to train in mixed precision; ``float16`` or ``bfloat16`` on CUDA.
        skip_nonfinite: steps in a row that are left out, where numbers are not finite, before the
            run ends.
        channels_last: whether feature maps lie channels-last in training.
        compile: whether training runs a compiled model; evaluations do not.
        build_optimizer: optimizer of a model's parameters, which clips gradients where asked to.
        build_schedule: the optimizer's learning-rate schedule.
        rates: the learning rates that the config names: the base's, and in YAML that at the end.
        warms_up: whether the schedule can have a warm-up.
        ddp: options of DistributedDataParallel.

        max_iter: iterations to train for.
        checkpoints: ``period`` (iterations) and ``max_to_keep`` (None for all).
        eval_period, log_period: iterations between evaluations (0: at the end only) and log lines.
        eval_pictures: images of each test set that evaluations during training show; 0: none.
        wandb: whether and where it is recorded at Weights & Biases.
        precise_bn: iterations to estimate batch norm statistics from before an evaluation; 0: none.
    """

    config: CfgNode | DictConfig
    keys: ConfigKeys
    output_dir: str
    device: str
    notes: tuple[str, ...]
    warnings: Sequence[str]
    seed: int

    model_class: type | None
    build_model: Callable[[], nn.Module]
    weights: str
    channel_order: str | None

    task: Task
    train_sets: tuple[str, ...]
    test_sets: tuple[str, ...]
    max_checked_files: int | None
    build_train_loader: Callable[[], Iterable]
    build_train_mapper: Callable[[], Any]
    build_test_mapper: Callable[[], Any]
    evaluate: Callable[..., dict] | None
    multi_scale: MultiScale | None

    batch_size: int
    scaled: bool
    accumulate: int
    amp: bool
    amp_dtype: str
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    build_schedule: Callable[[torch.optim.Optimizer], ParamScheduler | Any]
    rates: tuple[float, ...]
    warms_up: bool
    ddp: Mapping[str, Any]

    max_iter: int
    checkpoints: Mapping[str, Any]
    eval_period: int
    log_period: int
    eval_pictures: int = 0
    wandb: WandbOptions = field(default_factory=WandbOptions)
    precise_bn: int = 0
    eval_precision: str = "float32"
    skip_nonfinite: int = 0
    channels_last: bool = False
    compile: bool = False
    verify: Callable[[dict], None] = lambda results: None
