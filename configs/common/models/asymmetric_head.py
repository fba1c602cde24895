"""The head of ANN in place of another one."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from dnl_d2.modeling import AsymmetricHead


def asymmetric(head: DictConfig) -> DictConfig:
    """ANN's head with the width, classes, loss and auxiliary head of a context head."""
    shared = {k: v for k, v in head.items() if k not in ("_target_", "in_features")}
    return L(AsymmetricHead)(in_features=["res4", "res5"], project_channels=256, **shared)
