"""Training and evaluation on Detectron2's engine, for both config systems."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.engine.cli import command_line
from dnl_d2.engine.optimizer import optimizer_params
from dnl_d2.engine.runner import load_config, read_config, run
from dnl_d2.engine.schedule import PolyParamScheduler, multi_step, warmed_up
from dnl_d2.engine.spec import RunSpec
from dnl_d2.engine.trainer import Trainer
from dnl_d2.engine.training import build_model

__all__ = [
    "PolyParamScheduler",
    "RunSpec",
    "Trainer",
    "build_model",
    "command_line",
    "load_config",
    "multi_step",
    "optimizer_params",
    "read_config",
    "run",
    "warmed_up",
]
