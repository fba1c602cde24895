"""Building a model from a config file of either kind."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from torch import nn

from dnl_d2.config.loading import load_config_file
from dnl_d2.config.rules import check_yaml
from dnl_d2.errors import UsageError, building


def build_from_config(path: str, overrides: Sequence[str] = (), *, device: str) -> nn.Module:
    """The model of a config file of either kind, with initial weights.

    Args:
        path, overrides: of a config file, see :mod:`dnl_d2.config.loading`.
        device: where to build it; ``meta`` for parameters without memory.

    Raises:
        UsageError: the file cannot be loaded, has no model, or one that cannot be built.
    """
    cfg = load_config_file(path, overrides)
    if isinstance(cfg, CfgNode):
        check_yaml(cfg)
    with building(f"the model of {path}"), torch.device(device):
        if isinstance(cfg, CfgNode):
            cfg.MODEL.DEVICE = device
            return build_model(cfg)
        if "model" in cfg:
            return instantiate(cfg.model)
    raise UsageError(f"{path}: a LazyConfig without `model`")
