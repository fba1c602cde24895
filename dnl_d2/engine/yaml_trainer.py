"""Training and evaluation of YAML configs on Detectron2's DefaultTrainer."""

import argparse
import logging
import os
import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.utils.data import DataLoader

from dnl_d2.checkpoint.training import TrainingCheckpointer
from dnl_d2.config.batch_size import SameBatchSize, scale_yaml
from dnl_d2.config.rules import check_yaml
from dnl_d2.data import SemSegMapper
from dnl_d2.data.datasets.registration import SEMANTIC
from dnl_d2.data.naming_mapper import NamingMapper
from dnl_d2.engine.augmented_test import augmented_detector, check_augmented_test
from dnl_d2.engine.failures import training
from dnl_d2.engine.hooks import best_checkpoint_hook
from dnl_d2.engine.loading import check_weights_file, load_for_evaluation, load_weights
from dnl_d2.engine.optimizer import FULL_MODEL, clip_total_norm, without_decay
from dnl_d2.engine.prepare import (
    announce_single_scale,
    autocast_dtype,
    data_parallel,
    plain_batch_norm_if_alone,
    set_up,
    usable_device,
)
from dnl_d2.engine.schedule import PolyParamScheduler
from dnl_d2.engine.step import build_step, check_parts
from dnl_d2.errors import UsageError, building
from dnl_d2.evaluation import build_evaluator
from dnl_d2.validation.splits import check_splits
from dnl_d2.validation.task import task_of_yaml


class Trainer(DefaultTrainer):
    """DefaultTrainer with this library's mapper, schedule, evaluators and best checkpoint.

    Its constructor stands in for DefaultTrainer's, which trains in processes on CUDA only and
    knows neither bfloat16 nor parts of a batch.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        solver, device = cfg.SOLVER, cfg.MODEL.DEVICE
        dtype = autocast_dtype(solver.AMP.ENABLED, solver.AMP.DTYPE, device, "SOLVER.AMP.DTYPE")
        check_parts(solver.ACCUMULATE, solver.IMS_PER_BATCH, "SOLVER.ACCUMULATE")
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        parallel = data_parallel(model, device, broadcast_buffers=False)
        self._trainer = build_step(
            parallel, loader, optimizer, device=device, dtype=dtype, parts=solver.ACCUMULATE
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = TrainingCheckpointer(
            parallel,
            cfg.OUTPUT_DIR,
            trainer=weakref.proxy(self),
            batch_size=SameBatchSize(
                solver.IMS_PER_BATCH, scaled=bool(solver.REFERENCE_BATCH_SIZE)
            ),
        )
        self.start_iter = 0
        self.max_iter = solver.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        if len(cfg.TEST.SLIDE.WINDOW) and cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
            raise UsageError(
                "TEST.SLIDE.WINDOW: SemanticSegmentor does not slide; set MODEL.META_ARCHITECTURE "
                "to ContextSegmentor"
            )
        check_augmented_test(cfg)
        return plain_batch_norm_if_alone(super().build_model(cfg), cfg.MODEL.DEVICE)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        semantic = _is_semantic(cfg, cfg.DATASETS.TRAIN)
        mapper = SemSegMapper(cfg, True) if semantic else NamingMapper(DatasetMapper(cfg, True))
        return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        semantic = _is_semantic(cfg, [dataset_name])
        mapper = SemSegMapper(cfg, False) if semantic else NamingMapper(DatasetMapper(cfg, False))
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        clip = cfg.SOLVER.CLIP_GRADIENTS
        clip_all = clip.ENABLED and clip.CLIP_TYPE == FULL_MODEL
        if clip_all:  # not a type of Detectron2's
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = super().build_optimizer(cfg, model)
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

    @classmethod
    def test_augmented(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """Evaluates at several scales; every figure's name ends in ``_TTA``, as in Detectron2."""
        logging.getLogger(__name__).info("once more, at the scales of TEST.AUG")
        folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, model, evaluators)
        return {f"{key}_TTA": figures for key, figures in results.items()}

    def build_hooks(self) -> list[hooks.HookBase]:
        built = super().build_hooks()
        kinds = [MetadataCatalog.get(n).get("evaluator_type", None) for n in self.cfg.DATASETS.TEST]
        best = best_checkpoint_hook(kinds, self.cfg.TEST.EVAL_PERIOD, self.checkpointer)
        if best is not None:
            # Right behind the evaluation, before the writers that end the list.
            after = next(i for i, h in enumerate(built) if isinstance(h, hooks.EvalHook)) + 1
            built.insert(after, best)
        return built


def _is_semantic(cfg: CfgNode, names: list[str]) -> bool:
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    semantic = isinstance(architecture, type) and issubclass(architecture, SemanticSegmentor)
    kinds = {MetadataCatalog.get(n).get("evaluator_type", None) for n in names}
    return semantic and kinds <= set(SEMANTIC)


def run(cfg: CfgNode, args: argparse.Namespace) -> dict:
    """Trains, or evaluates with ``args.eval_only``; ``args.resume`` goes on where a run ended.

    Returns:
        The evaluation's results.

    Raises:
        UsageError: see :func:`dnl_d2.validation.splits.check_splits`.
    """
    check_yaml(cfg)
    if args.eval_only:
        check_augmented_test(cfg)
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = usable_device(cfg.MODEL.DEVICE)
    note = ""
    if not args.eval_only:
        cfg, note = scale_yaml(cfg)
    cfg.freeze()
    if not args.resume:
        check_weights_file(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    set_up(cfg, args, output_dir=cfg.OUTPUT_DIR)
    if note:
        logging.getLogger(__name__).info(note)
    check_splits(
        {"DATASETS.TRAIN": cfg.DATASETS.TRAIN},
        {"DATASETS.TEST": cfg.DATASETS.TEST},
        eval_only=args.eval_only,
        task=task_of_yaml(cfg),
        max_files=cfg.DATASETS.CHECK_LABELS,
    )
    if args.eval_only:
        with building("the model"):
            model = Trainer.build_model(cfg)
        load_for_evaluation(
            model,
            cfg.MODEL.WEIGHTS,
            output_dir=cfg.OUTPUT_DIR,
            resume=args.resume,
            key="MODEL.WEIGHTS",
            channel_order=cfg.INPUT.FORMAT,
        )
        results = Trainer.test(cfg, model)
        augmented = augmented_detector(cfg, model)
        if augmented is not None:
            results.update(Trainer.test_augmented(cfg, augmented))
        verify_results(cfg, results)
        return results
    if cfg.TEST.AUG.ENABLED:
        announce_single_scale()
        cfg = cfg.clone()
        cfg.defrost()
        cfg.TEST.AUG.ENABLED = False
        cfg.freeze()
    with building("model, optimizer and loaders"):
        trainer = Trainer(cfg)
    load_weights(
        trainer.checkpointer,
        cfg.MODEL.WEIGHTS,
        resume=args.resume,
        key="MODEL.WEIGHTS",
        channel_order=cfg.INPUT.FORMAT,
    )
    if args.resume and trainer.checkpointer.has_checkpoint():
        trainer.start_iter = trainer.iter + 1  # the checkpoint holds the iteration it ended
    with training():
        trainer.train()
    return getattr(trainer, "_last_eval_results", {})
