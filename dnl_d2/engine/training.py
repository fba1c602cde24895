"""What a run trains with, built from its :class:`~dnl_d2.engine.spec.RunSpec`."""

import logging
import weakref
from functools import partial
from typing import Any

import torch
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.utils import comm
from torch import nn

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.config.batch_size import SameBatchSize
from dnl_d2.data.stream import TrainingStream
from dnl_d2.engine.environment import data_parallel, fit_sync_batch_norm, pin_memory
from dnl_d2.engine.nonfinite.guard import NumbersGuard
from dnl_d2.engine.optimizer import fuse, keep_layouts
from dnl_d2.engine.precision import autocast_dtype
from dnl_d2.engine.resume import DataState, LoopState
from dnl_d2.engine.spec import RunSpec
from dnl_d2.engine.step import build_step, check_parts
from dnl_d2.errors import building
from dnl_d2.modeling.backbone.padding import mask_only_visible_padding
from dnl_d2.modeling.compilation import compile_parts, require_compiler
from dnl_d2.modeling.memory_format import weights_channels_last

_log = logging.getLogger(__name__)


def build_training(
    spec: RunSpec, loop: TrainerBase | None = None
) -> tuple[SimpleTrainer, Any, Checkpointer]:
    """Builds model, optimizer, loader, schedule and checkpointer of a run, in this order.

    Args:
        spec: the run.
        loop: runs the steps and holds the hooks; None for the step's own loop.

    Returns:
        Detectron2's trainer, whose ``run_step`` trains on a batch; the schedule of the learning
        rate; the checkpointer of the model and the loop.

    Raises:
        UsageError: what the config's values lead to.
    """
    if spec.multi_scale:
        _log.info(
            "evaluations during training are at a single scale; for ms+flip run --eval-only "
            "afterwards"
        )
    dtype = autocast_dtype(spec.amp, spec.amp_dtype, spec.device, spec.keys.amp_dtype)
    check_parts(spec.accumulate, spec.batch_size, spec.keys.accumulate)
    if spec.compile:
        require_compiler(spec.device, spec.keys.compile)
    model = build_model(spec)
    if spec.channels_last:
        weights_channels_last(model)
    if spec.compile:
        parts = ", ".join(compile_parts(model)) or type(model).__name__
        _log.info(f"{spec.keys.compile}: {parts} compiled, which the first iterations wait for")
    with building("optimizer, loader and schedule"):
        optimizer = spec.build_optimizer(model)
        fuse(optimizer, scaled=dtype is torch.float16)
        keep_layouts(optimizer)
        stream = TrainingStream(
            partial(_train_loader, spec),  # once more for the seed of a run that is resumed
            seed=comm.shared_random_seed() if spec.seed < 0 else spec.seed,
            batch_size=spec.batch_size,
        )
        schedule = spec.build_schedule(optimizer)
    with building("DistributedDataParallel"):
        parallel = data_parallel(model, spec.device, **spec.ddp)
    step = build_step(
        parallel, stream, optimizer, device=spec.device, dtype=dtype, parts=spec.accumulate
    )
    step.guard = NumbersGuard(
        spec, model, optimizer, scaler=getattr(step, "grad_scaler", None), dtype=dtype
    )
    data = DataState(weakref.proxy(step), seeded=spec.seed >= 0)
    checkpointer = Checkpointer(
        parallel,
        spec.output_dir,
        key=spec.keys.weights,
        channel_order=spec.channel_order,
        trainer=LoopState(
            weakref.proxy(loop or step), nested=loop is not None, data=data, guard=step.guard
        ),
        batch_size=SameBatchSize(spec.batch_size, scaled=spec.scaled),
    )
    return step, schedule, checkpointer


def _train_loader(spec: RunSpec) -> Any:
    loader = spec.build_train_loader()
    pin_memory(loader, spec.device)
    return loader


def build_model(spec: RunSpec) -> nn.Module:
    """The model of a run, fitted to the processes there are."""
    with building("the model"):
        model = fit_sync_batch_norm(spec.build_model(), spec.device)
    mask_only_visible_padding(model, spec.keys.pixel_mean)
    return model
