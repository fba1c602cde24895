"""Configs and models of recipes."""

import torch
from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.config.loading import load_config_file
from dnl_d2.errors import UsageError
from dnl_d2.model_zoo.recipes import get_checkpoint_url, get_config_file
from dnl_d2.modeling.from_config import build_from_config


def get_config(name: str, trained: bool = False) -> CfgNode | DictConfig:
    """The config of a recipe.

    Args:
        name: see :func:`get_config_file`; with ``.py`` the result is a LazyConfig.
        trained: let it start from the recipe's published weights, see :func:`get_checkpoint_url`.

    Raises:
        UsageError: see these.
    """
    cfg = load_config_file(get_config_file(name))
    if trained and isinstance(cfg, CfgNode):
        cfg.MODEL.WEIGHTS = get_checkpoint_url(name)
    elif trained:
        cfg.train.init_checkpoint = get_checkpoint_url(name)
    return cfg


def get_model(
    name: str,
    weights: str | None = None,
    *,
    trained: bool = False,
    device: str | torch.device | None = None,
) -> nn.Module:
    """A recipe's model in evaluation mode.

    Args:
        name: see :func:`get_config_file`.
        weights: a file of this library or of any public code base that
            ``docs/public_checkpoints.md`` lists, an address, or a published file's name; None for
            initial weights.
        trained: take the recipe's published weights, see :func:`get_checkpoint_url`.
        device: where to put it, CUDA where there is one by default; ``meta`` for parameters
            without memory.

    Raises:
        UsageError: see :func:`get_config_file`; or the weights cannot be read or do not fill the
            model.
    """
    if trained and weights:
        raise UsageError(f"model zoo: trained=True and weights={weights!r}: give one of them")
    if trained:
        weights = get_checkpoint_url(name)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = str(torch.device(device))
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"model zoo: device {device!r} is none of PyTorch's") from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"model zoo: there is no CUDA device here for device={device!r}")
    model = build_from_config(get_config_file(name), device=device)
    if device != "meta":
        model.to(device)
    if weights:
        Checkpointer(model, key="weights").load_whole(weights, purpose="model_zoo.get_model")
    return model.eval()
