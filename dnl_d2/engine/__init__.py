"""Training and evaluation on Detectron2's engine, for both config systems."""

import argparse

from detectron2.config import CfgNode
from omegaconf import DictConfig

from dnl_d2.config.loading import load_config
from dnl_d2.engine import lazy_trainer, yaml_trainer
from dnl_d2.engine.optimizer import optimizer_params
from dnl_d2.engine.schedule import PolyParamScheduler
from dnl_d2.engine.yaml_trainer import Trainer

__all__ = ["PolyParamScheduler", "Trainer", "load_config", "optimizer_params", "run"]


def run(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> dict:
    """Trains or evaluates a config of either kind; see :func:`dnl_d2.engine.yaml_trainer.run`."""
    trainer = yaml_trainer if isinstance(cfg, CfgNode) else lazy_trainer
    return trainer.run(cfg, args)
