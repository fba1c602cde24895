"""Fitting a run to the machine: log and seed, device, processes."""

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import create_ddp_model, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader

from dnl_d2.errors import building
from dnl_d2.layers.sync_batch_norm import CPUSyncBatchNorm
from dnl_d2.modeling.compilation import uncompiled
from dnl_d2.reporting.console import show_essentials

_log = logging.getLogger(__name__)


def set_up(cfg: CfgNode | DictConfig, args: argparse.Namespace, *, output_dir: str) -> None:
    """Detectron2's ``default_setup``, whose log also gets what this library has to say.

    What is for ``log.txt`` alone shows on the console only with ``args.verbose``.
    """
    rank = comm.get_rank()
    with building(f"the log and the copy of the config in the output folder {output_dir}"):
        # As default_setup calls it, which then gets the same loggers.
        loggers = [
            setup_logger(output_dir, distributed_rank=rank, name="fvcore"),
            setup_logger(output_dir, distributed_rank=rank),
            setup_logger(output_dir, distributed_rank=rank, name="dnl_d2"),
        ]
        for logger in () if getattr(args, "verbose", False) else loggers:
            show_essentials(logger)
        default_setup(cfg, args)
    if not getattr(args, "verbose", False):
        _log.info(f"the full log is in {output_dir}/log.txt; --verbose shows it here")
    for handler in loggers[-1].handlers:
        if getattr(handler, "stream", None) is sys.stdout:  # tracebacks of mistakes: log.txt only
            handler.setLevel(logging.INFO)


def usable_device(device: str) -> str:
    """``device``, or ``cpu`` with a notice where CUDA is asked for but missing."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        _log.warning(f"no CUDA device here: running on cpu, not {device}")
        return "cpu"
    return device


def data_parallel(model: nn.Module, device: str, **options: Any) -> nn.Module:
    """Detectron2's ``create_ddp_model``, also where several processes train on the CPU."""
    if torch.device(device).type == "cpu":
        options["device_ids"] = None  # it would name a GPU
    with warnings.catch_warnings():  # the option that PyTorch 2.14 prefers is not the same
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return create_ddp_model(model, **options)


def pin_memory(loader: Any, device: str) -> None:
    """Has a loader of Detectron2's hand out tensors that a GPU can copy while the CPU goes on.

    Args:
        loader: not iterated yet. One that is none of PyTorch's, with or without Detectron2's
            grouping by aspect ratio around it, stays as it is.
        device: where the model is.
    """
    while loader is not None and not isinstance(loader, DataLoader):
        loader = getattr(loader, "dataset", getattr(loader, "_dataset", None))
    if loader is not None and torch.device(device).type == "cuda":
        loader.pin_memory = True


@contextlib.contextmanager
def many_sizes() -> Iterator[None]:
    """A context for pictures of many sizes: for none of them is anything compiled or tried out."""
    backend = torch.backends.cudnn
    before, backend.benchmark = backend.benchmark, False
    try:
        with uncompiled():
            yield
    finally:
        backend.benchmark = before


def share_buffers(model: nn.Module) -> None:
    """Gives all processes the buffers of the main one, which are those that it saves.

    Statistics of batch norm that is not synchronised are those of a process's own pictures.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def fit_sync_batch_norm(model: nn.Module, device: str) -> nn.Module:
    """Replaces SyncBN, which needs several processes with a GPU each, by what does its work here.

    That is BN in a single process, and on CPUs
    :class:`~dnl_d2.layers.sync_batch_norm.CPUSyncBatchNorm`. Parameters, statistics and their names
    stay the same, so checkpoints pass between them.
    """
    alone = comm.get_world_size() == 1
    if not alone and torch.device(device).type != "cpu":
        return model
    kind = nn.BatchNorm2d if alone else CPUSyncBatchNorm
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                setattr(parent, name, _as_kind(kind, child))
                replaced += 1
    if replaced and alone:
        _log.info(
            f"{replaced} SyncBN layers run as BN: a single process cannot synchronise statistics"
        )
    return model


def _as_kind(kind: type[nn.BatchNorm2d], sync: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    norm = kind(sync.num_features, sync.eps, sync.momentum, sync.affine, sync.track_running_stats)
    norm.load_state_dict(sync.state_dict())
    if sync.affine:
        norm.weight, norm.bias = sync.weight, sync.bias
    return norm.train(sync.training).to(next(iter(sync.state_dict().values())).device)
