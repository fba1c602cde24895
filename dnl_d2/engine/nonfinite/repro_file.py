"""A training step in a file: model, weights and batch, for ``tools/replay_step.py``."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from detectron2.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
)
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dnl_d2.checkpoint.torch_files import load_zip, open_zip
from dnl_d2.checkpoint.unreadable import check_entries, check_sizes, explaining
from dnl_d2.engine.environment import fit_sync_batch_norm
from dnl_d2.engine.nonfinite.batch import TrainedBatch
from dnl_d2.engine.nonfinite.finding import tensors_in
from dnl_d2.errors import UsageError, building
from dnl_d2.files import renamed_when_whole
from dnl_d2.modeling.backbone.padding import mask_only_visible_padding

_log = logging.getLogger(__name__)
_FORMAT = "dnl_d2 training step, 1"
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "": None}
# What may be in a batch beside tensors and arrays.
_STRUCTURES = [BitMasks, Boxes, Instances, Keypoints, PolygonMasks, RotatedBoxes]


@dataclass(frozen=True)
class Repro:
    """What a file holds.

    Args:
        config: a YAML config, or the ``model`` of a LazyConfig; both as YAML text, the latter empty
            where it has values that cannot be written.
        lazy: whether it is the latter.
        state: parameters and buffers as they were before the step.
        batch: that it trains on.
        reason: what was not finite.
    """

    config: str
    lazy: bool
    state: dict[str, torch.Tensor]
    batch: TrainedBatch
    reason: str


def write_repro(
    path: str, model: nn.Module, config: CfgNode | DictConfig, batch: TrainedBatch, reason: str
) -> None:
    """Writes a step's file, whole or not at all.

    Args:
        path: the file.
        model: as it was before the step, without what joins processes.
        config: of the run.
        batch, reason: see :class:`Repro`.

    Raises:
        WriteError: it cannot be written.
    """
    lazy = not isinstance(config, CfgNode)
    content = {
        "format": _FORMAT,
        "config": _lazy_text(config) if lazy else config.dump(),
        "lazy": lazy,
        "state": {key: value.contiguous() for key, value in model.state_dict().items()},
        "inputs": batch.inputs,
        "iteration": batch.iteration,
        "random_key": list(batch.random_key),
        "parts": batch.parts,
        "dtype": next(name for name, dtype in _DTYPES.items() if dtype is batch.dtype),
        "reason": reason,
    }
    with renamed_when_whole(path) as temporary:
        torch.save(content, temporary)


def read_repro(path: str) -> Repro:
    """Reads a step's file; nothing that is in it is run.

    Raises:
        UsageError: no such file, not one of these files, or its batch holds objects of other
            classes than Detectron2's structures.
    """
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such file")
    with explaining(path, remedy="objects of that class cannot be kept"):
        content = _read(path)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise UsageError(
                "not the file of a training step: name a nonfinite-*.pth of a run's folder"
            )
        check_entries(content)
        tensors = tensors_in([content["inputs"], content["state"]])
        check_sizes(tensors, os.path.getsize(path))
        batch = TrainedBatch(
            content["inputs"],
            int(content["iteration"]),
            tuple(map(int, content["random_key"])),
            max(int(content["parts"]), 1),
            _DTYPES[content["dtype"]],
        )
        config, reason = str(content["config"]), str(content["reason"])
        return Repro(config, bool(content["lazy"]), dict(content["state"]), batch, reason)


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return None
    with open_zip(path) as archive:
        return load_zip(archive, _STRUCTURES)


def build_repro_model(repro: Repro, *, device: str, trust_config: bool) -> nn.Module:
    """The model of a file with its weights, in training mode.

    Args:
        repro: the file.
        device: where to build it.
        trust_config: whether a LazyConfig may call what it names: any function.

    Raises:
        UsageError: it cannot be built, or is a LazyConfig's and not to be trusted.
    """
    if repro.lazy and not repro.config:
        raise UsageError("the run's LazyConfig holds values that a file cannot: no model to build")
    if repro.lazy and not trust_config:
        raise UsageError(
            "the file's model is that of a LazyConfig, which can call any function: add "
            "--trust-config if you know where the file is from"
        )
    with building("the model of the file"):
        if repro.lazy:
            model = instantiate(OmegaConf.create(yaml.safe_load(repro.config))).to(device)
        else:
            cfg = CfgNode.load_cfg(repro.config)
            cfg.MODEL.DEVICE = device
            model = build_model(cfg)
        model = fit_sync_batch_norm(model, device)
        mask_only_visible_padding(model, "pixel_mean")
        model.load_state_dict(repro.state)
    return model.train()


def _lazy_text(config: DictConfig) -> str:
    try:
        return yaml.safe_dump(_plain(OmegaConf.to_container(config.model, resolve=True)))
    except Exception as error:  # values that are objects, of whatever kind
        _log.debug("the config's model cannot be written: %s", error)
        return ""


def _plain(value: Any) -> Any:
    """Lists and mappings with targets by their names."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
