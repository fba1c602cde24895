"""Fitting a model to the machine it runs on: device, norms, precision."""

import logging
import sys

import torch
from detectron2.engine import create_ddp_model, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from dnl_d2.errors import UsageError, building

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def set_up(cfg, args, *, output_dir: str) -> None:
    """Detectron2's ``default_setup``, whose log also gets what this library has to say."""
    with building(f"the log and the copy of the config in the output folder {output_dir}"):
        default_setup(cfg, args)
    logger = setup_logger(output_dir, distributed_rank=comm.get_rank(), name="dnl_d2")
    for handler in logger.handlers:
        if getattr(handler, "stream", None) is sys.stdout:  # tracebacks of mistakes: log.txt only
            handler.setLevel(logging.INFO)


def usable_device(device: str) -> str:
    """``device``, or ``cpu`` with a notice where CUDA is asked for but missing."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        logging.getLogger(__name__).warning(f"no CUDA device here: running on cpu, not {device}")
        return "cpu"
    return device


def announce_single_scale() -> None:
    """Says that a run which trains leaves out ms+flip: it would evaluate for far too long."""
    logging.getLogger(__name__).info(
        "evaluations during training are at a single scale; for ms+flip run --eval-only afterwards"
    )


def data_parallel(model: nn.Module, device: str, **options) -> nn.Module:
    """Detectron2's ``create_ddp_model``, also where several processes train on the CPU."""
    if torch.device(device).type == "cpu":
        options["device_ids"] = None  # it would name a GPU
    return create_ddp_model(model, **options)


def autocast_dtype(enabled: bool, name: str, device: str, key: str) -> torch.dtype | None:
    """What mixed precision trains in: None if it is off, and always bfloat16 on a CPU.

    Args:
        enabled: whether to use it.
        name: ``float16`` or ``bfloat16``, on CUDA.
        device: where the model is.
        key: the config key of ``name``, for the message.
    """
    if name not in _DTYPES:
        raise UsageError(f"{key}={name!r}: use one of {', '.join(_DTYPES)}")
    if not enabled:
        return None
    if torch.device(device).type == "cpu":
        return torch.bfloat16
    if name == "bfloat16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise UsageError(f"{key}: this GPU has no bfloat16; use float16")
    return _DTYPES[name]


class AutocastInTraining(nn.Module):
    """Runs a model's training passes in bfloat16 autocast; evaluation stays in fp32.

    bfloat16 needs no loss scaling, so any trainer will do; Detectron2's AMPTrainer scales, and is
    for CUDA only.
    """

    def __init__(self, model: nn.Module, *, device: str = "cpu"):
        super().__init__()
        self.model = model
        self.device_type = torch.device(device).type
        logging.getLogger(__name__).info(
            f"mixed precision on {self.device_type}: bfloat16 in training"
        )

    def forward(self, inputs: list[dict]):
        training = self.training and torch.is_grad_enabled()
        with torch.autocast(self.device_type, torch.bfloat16, enabled=training):
            return self.model(inputs)


def plain_batch_norm_if_alone(model: nn.Module, device: str) -> nn.Module:
    """Replaces SyncBN by BN where there is nothing to synchronise with, and says so.

    SyncBatchNorm needs several processes, each with an accelerator. Parameters, statistics and
    their names stay the same, so checkpoints pass between the two.
    """
    alone = comm.get_world_size() == 1
    if not alone and torch.device(device).type != "cpu":
        return model
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                setattr(parent, name, _as_batch_norm(child))
                replaced += 1
    if replaced:
        why = "a single process" if alone else "CPU processes"
        logging.getLogger(__name__).info(
            f"{replaced} SyncBN layers run as BN: {why} cannot synchronise statistics"
        )
    return model


def _as_batch_norm(sync: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(
        sync.num_features, sync.eps, sync.momentum, sync.affine, sync.track_running_stats
    )
    plain.load_state_dict(sync.state_dict())
    if sync.affine:
        plain.weight, plain.bias = sync.weight, sync.bias
    return plain.train(sync.training).to(next(iter(sync.state_dict().values())).device)
