"""The class that a train_net.py of one's own subclasses, as with Detectron2's DefaultTrainer."""

import logging
import os
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.solver import (
    LRMultiplier,
    WarmupParamScheduler,
    get_default_optimizer_params,
)
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.utils.data import DataLoader

from dnl_d2.config.keys import FULL_MODEL
from dnl_d2.data.naming_mapper import NamingMapper
from dnl_d2.engine.environment import fit_sync_batch_norm
from dnl_d2.engine.failures import explaining_failures
from dnl_d2.engine.folder_lock import only_run_in
from dnl_d2.engine.from_yaml import from_yaml, mapper_of_yaml
from dnl_d2.engine.hooks import build_hooks
from dnl_d2.engine.multi_scale import check_multi_scale
from dnl_d2.engine.optimizer import clip_total_norm, without_decay
from dnl_d2.engine.output_folder import weights_in
from dnl_d2.engine.schedule import PolyParamScheduler
from dnl_d2.engine.training import build_training
from dnl_d2.evaluation import build_evaluator
from dnl_d2.modeling import SameSizeBatches

_log = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """DefaultTrainer with this library's mapper, schedule, evaluators and checkpoints.

    ``trainer = Trainer(cfg); trainer.resume_or_load(resume=False); trainer.train()`` does what
    :func:`dnl_d2.engine.run` does, but for the checks of the datasets. Subclasses override the
    ``build_*`` methods, ``test`` and ``build_hooks``.

    Args:
        cfg: with this library's keys.

    Raises:
        UsageError: a value that cannot be meant.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # what DefaultTrainer builds is for CUDA and Detectron2's keys
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        self.spec = from_yaml(cfg, self, train=True)
        self._trainer, self.scheduler, self.checkpointer = build_training(self.spec, loop=self)
        self.cfg = self.spec.config
        self.start_iter, self.max_iter = 0, self.spec.max_iter
        self.register_hooks(self.build_hooks())

    def train(self) -> dict | None:
        """Trains from where :meth:`resume_or_load` has left off.

        Raises:
            UsageError: the loss diverged, a checkpoint cannot be written, or another training
                writes into the folder.
        """
        earlier = weights_in(self.cfg.OUTPUT_DIR)
        if self.start_iter == 0 and earlier:
            _log.warning(
                f"OUTPUT_DIR {self.cfg.OUTPUT_DIR} holds the weights of another run ({earlier}), "
                "which this one overwrites"
            )
        lock = only_run_in(self.cfg.OUTPUT_DIR, key="OUTPUT_DIR")
        with lock, explaining_failures(self.spec.keys.find_unused_parameters):
            return super().train()

    def build_hooks(self) -> list[hooks.HookBase | None]:
        """The hooks of every run of this library; evaluations call :meth:`test`."""

        def evaluate() -> dict:
            test = self.spec.evaluate
            self._last_eval_results = test(self.model) if test else {}
            return self._last_eval_results

        return build_hooks(
            self.spec,
            self.model,
            self.checkpointer,
            self._trainer,
            self.scheduler,
            evaluate,
            self.build_writers,
        )

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict:
        """As in DefaultTrainer; images of other sizes in a batch do not change a result."""
        return super().test(cfg, SameSizeBatches(model), evaluators)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """As in DefaultTrainer, for the processes and devices there are.

        Raises:
            UsageError: a value that cannot be meant, or TEST.AUG for a model that ignores it.
        """
        spec = from_yaml(cfg, cls, train=False)
        check_multi_scale(spec, spec.model_class)
        model = super().build_model(spec.config)
        return fit_sync_batch_norm(model, spec.device)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        mapper = NamingMapper(mapper_of_yaml(cfg, cfg.DATASETS.TRAIN, train=True))
        return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        mapper = NamingMapper(mapper_of_yaml(cfg, [dataset_name], train=False))
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        clip = cfg.SOLVER.CLIP_GRADIENTS
        clip_all = clip.ENABLED and clip.CLIP_TYPE == FULL_MODEL
        if clip_all:  # not a type of Detectron2's
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
        adaptive = _ADAPTIVE.get(cfg.SOLVER.OPTIMIZER.upper())
        if adaptive is None:
            optimizer = super().build_optimizer(cfg, model)
        else:
            optimizer = _build_adaptive(adaptive, cfg, model)
        optimizer.param_groups = without_decay(
            optimizer.param_groups, model, cfg.SOLVER.NO_DECAY, key="SOLVER.NO_DECAY"
        )
        if clip_all:
            clip_total_norm(optimizer, clip.CLIP_VALUE, clip.NORM_TYPE)
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
        solver = cfg.SOLVER
        if solver.LR_SCHEDULER_NAME != "PolyLR":
            return super().build_lr_scheduler(cfg, optimizer)
        scheduler = PolyParamScheduler(
            power=solver.POLY_LR_POWER, end_value=solver.MIN_LR / solver.BASE_LR
        )
        if solver.WARMUP_ITERS > 0:
            scheduler = WarmupParamScheduler(
                scheduler,
                solver.WARMUP_FACTOR,
                min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
                solver.WARMUP_METHOD,
            )
        return LRMultiplier(optimizer, multiplier=scheduler, max_iter=solver.MAX_ITER)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
        return build_evaluator(dataset_name, folder, kpt_oks_sigmas=sigmas)


_ADAPTIVE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "ADAM": torch.optim.Adam,
    "ADAMW": torch.optim.AdamW,
}


def _build_adaptive(
    optimizer_class: Callable[..., torch.optim.Optimizer], cfg: CfgNode, model: nn.Module
) -> torch.optim.Optimizer:
    """An optimizer with the parameter groups and the clipping that Detectron2 gives SGD."""
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = optimizer_class(groups, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    return maybe_add_gradient_clipping(cfg, optimizer)
