"""A YAML config as a :class:`~dnl_d2.engine.spec.RunSpec`: the only reader of its run's keys."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import verify_results
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from detectron2.utils import comm
from torch import nn

from dnl_d2.config.batch_size import scale_schedule
from dnl_d2.config.rules import check_yaml, select_yaml
from dnl_d2.data import SemSegMapper
from dnl_d2.data.datasets.configured import register_configured
from dnl_d2.data.datasets.registration import SEMANTIC
from dnl_d2.engine.environment import usable_device
from dnl_d2.engine.schedule import never_reached
from dnl_d2.engine.spec import ConfigKeys, DetectorScales, MultiScale, RunSpec, WandbOptions
from dnl_d2.errors import UsageError
from dnl_d2.validation.instances import InstanceTask
from dnl_d2.validation.keypoints import KeypointTask
from dnl_d2.validation.task import Task

KEYS = ConfigKeys(
    weights="MODEL.WEIGHTS",
    output_dir="OUTPUT_DIR",
    train_sets="DATASETS.TRAIN",
    test_sets="DATASETS.TEST",
    amp_dtype="SOLVER.AMP.DTYPE",
    accumulate="SOLVER.ACCUMULATE",
    compile="SOLVER.COMPILE",
    cudnn="CUDNN_BENCHMARK",
    find_unused_parameters="SOLVER.DDP.FIND_UNUSED_PARAMETERS",
    pixel_mean="MODEL.PIXEL_MEAN",
    skip_nonfinite="SOLVER.SKIP_NONFINITE",
    wandb="WANDB.PROJECT",
)
_RATES = ("SOLVER.BASE_LR", "SOLVER.MIN_LR", "SOLVER.BASE_LR_END")
_ITERATIONS = (
    "SOLVER.MAX_ITER",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
)
# By architecture or its base: the node of its number of classes, and whether it can have masks.
_DETECTORS = {
    "GeneralizedRCNN": ("ROI_HEADS", True),
    "PanopticFPN": ("ROI_HEADS", True),
    "RetinaNet": ("RETINANET", False),
}
# Those with MODEL.SEM_SEG_HEAD, likewise; of Detectron2's projects some may not be imported.
_SEMANTIC = ("SemanticSegmentor", "PanopticFPN", "PanopticDeepLab")


def from_yaml(
    cfg: CfgNode, builder: DefaultTrainer | type[DefaultTrainer], *, train: bool
) -> RunSpec:
    """The run that a YAML config describes.

    Args:
        cfg: with this library's keys; it stays as it is. Datasets that it declares are registered.
        builder: builds model, optimizer, loaders and evaluators: a
            :class:`~dnl_d2.engine.trainer.Trainer`, or a class of that kind.
        train: whether it trains; otherwise it only evaluates.

    Raises:
        UsageError: a value that cannot be meant, or that the model does not know.
    """
    check_yaml(cfg)
    register_configured(cfg.DATASETS)
    fitted, note = _fitted(cfg, train)
    cfg = fitted.clone()
    cfg.defrost()
    if train:  # evaluations during training are at a single scale
        cfg.TEST.AUG.ENABLED = False
    cfg.freeze()
    solver = cfg.SOLVER
    return RunSpec(
        config=fitted,
        keys=KEYS,
        output_dir=cfg.OUTPUT_DIR,
        device=cfg.MODEL.DEVICE,
        notes=(note,) if note else (),
        warnings=never_reached(
            ("SOLVER.MAX_ITER", solver.MAX_ITER),
            ("SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS),
            ("SOLVER.STEPS", solver.STEPS if "MultiStep" in solver.LR_SCHEDULER_NAME else ()),
        ),
        seed=cfg.SEED,
        model_class=_model_class(cfg),
        build_model=lambda: builder.build_model(cfg),
        weights=cfg.MODEL.WEIGHTS,
        channel_order=cfg.INPUT.FORMAT,
        task=task_of_yaml(cfg),
        train_sets=tuple(cfg.DATASETS.TRAIN),
        test_sets=tuple(cfg.DATASETS.TEST),
        max_checked_files=cfg.DATASETS.CHECK_LABELS,
        build_train_loader=lambda: builder.build_train_loader(cfg),
        build_train_mapper=lambda: mapper_of_yaml(cfg, cfg.DATASETS.TRAIN, train=True),
        build_test_mapper=lambda: mapper_of_yaml(cfg, cfg.DATASETS.TEST, train=False),
        evaluate=partial(_evaluate, cfg, builder),
        multi_scale=_multi_scale(fitted),
        eval_precision=cfg.TEST.PRECISION,
        verify=lambda results: verify_results(cfg, results),
        batch_size=solver.IMS_PER_BATCH,
        scaled=bool(solver.REFERENCE_BATCH_SIZE),
        accumulate=solver.ACCUMULATE,
        amp=solver.AMP.ENABLED,
        amp_dtype=solver.AMP.DTYPE,
        skip_nonfinite=solver.SKIP_NONFINITE,
        channels_last=solver.CHANNELS_LAST,
        compile=solver.COMPILE,
        build_optimizer=lambda model: builder.build_optimizer(cfg, model),
        build_schedule=lambda optimizer: builder.build_lr_scheduler(cfg, optimizer),
        rates=(solver.BASE_LR, solver.MIN_LR),
        warms_up=True,
        ddp={option.lower(): value for option, value in solver.DDP.items()},
        max_iter=solver.MAX_ITER,
        checkpoints={
            "period": solver.CHECKPOINT_PERIOD,
            "max_to_keep": solver.CHECKPOINTS_TO_KEEP or None,
        },
        eval_period=cfg.TEST.EVAL_PERIOD,
        log_period=solver.LOG_PERIOD,
        eval_pictures=cfg.TEST.EVAL_PICTURES,
        wandb=WandbOptions(cfg.WANDB.PROJECT, cfg.WANDB.NAME),
        precise_bn=cfg.TEST.PRECISE_BN.NUM_ITER if cfg.TEST.PRECISE_BN.ENABLED else 0,
    )


def _fitted(cfg: CfgNode, train: bool) -> tuple[CfgNode, str]:
    """The config for this machine and its batch size, and what became of its schedule."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = usable_device(cfg.MODEL.DEVICE)
    note = ""
    if train:
        written = cfg.SOLVER
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        note = scale_yaml(cfg)
        if cfg.SOLVER.REFERENCE_WORLD_SIZE != written.REFERENCE_WORLD_SIZE:
            note = (
                f"scaled from SOLVER.REFERENCE_WORLD_SIZE {written.REFERENCE_WORLD_SIZE} to "
                f"{cfg.SOLVER.REFERENCE_WORLD_SIZE}: SOLVER.IMS_PER_BATCH "
                f"{written.IMS_PER_BATCH} -> {cfg.SOLVER.IMS_PER_BATCH}, SOLVER.BASE_LR "
                f"{written.BASE_LR:g} -> {cfg.SOLVER.BASE_LR:g}, SOLVER.MAX_ITER "
                f"{written.MAX_ITER} -> {cfg.SOLVER.MAX_ITER}"
            )
    cfg.freeze()
    return cfg, note


def scale_yaml(cfg: CfgNode) -> str:
    """Changes a config to its IMS_PER_BATCH instead of its REFERENCE_BATCH_SIZE.

    Returns:
        What was changed, in a line; empty for nothing.

    Raises:
        UsageError: a negative reference, or Detectron2's REFERENCE_WORLD_SIZE is set as well.
    """
    solver = cfg.SOLVER
    if solver.REFERENCE_BATCH_SIZE and solver.REFERENCE_WORLD_SIZE:
        raise UsageError(
            "SOLVER.REFERENCE_BATCH_SIZE and SOLVER.REFERENCE_WORLD_SIZE both scale the schedule: "
            "set one of them to 0"
        )
    steps = () if solver.LR_SCHEDULER_NAME != "PolyLR" else ("SOLVER.STEPS",)  # it reads none
    iterations = [key for key in _ITERATIONS if key not in steps]
    changes, note = scale_schedule(
        {key: select_yaml(cfg, key) for key in (*_RATES, *iterations)},
        rates=_RATES,
        size=("SOLVER.IMS_PER_BATCH", solver.IMS_PER_BATCH),
        reference=("SOLVER.REFERENCE_BATCH_SIZE", solver.REFERENCE_BATCH_SIZE),
    )
    cfg.merge_from_list([part for change in changes.items() for part in change])
    return note


def task_of_yaml(cfg: CfgNode) -> Task:
    """What the model of a YAML config reads; nothing for architectures that are not known here."""
    instances = None
    bases = _with_bases(cfg)
    detector = next((name for name in bases if name in _DETECTORS), None)
    if detector is not None:
        node, masks = _DETECTORS[detector]
        keypoints = masks and cfg.MODEL.KEYPOINT_ON
        instances = InstanceTask(
            num_classes=cfg.MODEL[node].NUM_CLASSES,
            classes_key=f"MODEL.{node}.NUM_CLASSES",
            masks=masks and cfg.MODEL.MASK_ON,
            masks_key="MODEL.MASK_ON",
            mask_format=cfg.INPUT.MASK_FORMAT,
            format_key="INPUT.MASK_FORMAT",
            keypoints_key="MODEL.KEYPOINT_ON" if keypoints else None,
            keypoints=_keypoint_task(cfg) if keypoints else None,
            keeps_empty=not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        )
    semantic = any(name in _SEMANTIC for name in bases)
    return Task(
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if semantic else None,
        instances=instances,
        only_detects=instances is not None and not semantic,
        proposals_key="MODEL.LOAD_PROPOSALS" if cfg.MODEL.LOAD_PROPOSALS else None,
        crop_size=tuple(cfg.INPUT.CROP.SIZE) if cfg.INPUT.CROP.ENABLED else (),
    )


def _keypoint_task(cfg: CfgNode) -> KeypointTask:
    return KeypointTask(
        count=cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS,
        count_key="MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
        sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
        sigmas_key="TEST.KEYPOINT_OKS_SIGMAS",
        flip=cfg.INPUT.RANDOM_FLIP,
        flip_key="INPUT.RANDOM_FLIP",
    )


def mapper_of_yaml(cfg: CfgNode, names: Sequence[str], *, train: bool) -> DatasetMapper:
    """For segmentors that read label maps ours, otherwise Detectron2's.

    Args:
        cfg: the config.
        names: the datasets whose records it maps.
        train: whether labels are wanted too.

    Raises:
        UsageError: INPUT.CACHE_DIR for training that is not ours.
    """
    kinds = {MetadataCatalog.get(name).get("evaluator_type", None) for name in names}
    if is_segmentor(cfg) and kinds <= set(SEMANTIC):
        return SemSegMapper(cfg, train)
    if train and cfg.INPUT.CACHE_DIR:
        raise UsageError(
            "INPUT.CACHE_DIR: only a segmentor's pictures are kept decoded; leave it empty"
        )
    mirrors = train and cfg.INPUT.RANDOM_FLIP != "none"
    if mirrors or not cfg.MODEL.KEYPOINT_ON:
        return DatasetMapper(cfg, train)
    # Detectron2's asks how keypoints are swapped also where nothing is mirrored.
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.KEYPOINT_ON = False
    return DatasetMapper(cfg, train, use_keypoint=True)


def is_segmentor(cfg: CfgNode) -> bool:
    """Whether the model is Detectron2's SemanticSegmentor or derives from it."""
    found = _model_class(cfg)
    return found is not None and issubclass(found, SemanticSegmentor)


def _model_class(cfg: CfgNode) -> type | None:
    name = cfg.MODEL.META_ARCHITECTURE
    found = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
    return found if isinstance(found, type) else None


def _with_bases(cfg: CfgNode) -> list[str]:
    """Names of the architecture and of its base classes, the nearest first."""
    found = _model_class(cfg)
    return [c.__name__ for c in found.__mro__] if found else [cfg.MODEL.META_ARCHITECTURE]


def _multi_scale(cfg: CfgNode) -> MultiScale | None:
    augment = cfg.TEST.AUG
    if not augment.ENABLED:
        return None
    scales = DetectorScales(tuple(augment.MIN_SIZES), augment.MAX_SIZE, augment.FLIP)
    return MultiScale("TEST.AUG.ENABLED", segmentors=True, detectors=scales)


def _evaluate(cfg: CfgNode, builder: Any, model: nn.Module, folder: str | None = None) -> dict:
    if folder is None:  # a subclass's `test` may take no more
        return builder.test(cfg, model)
    evaluators = [builder.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
    return builder.test(cfg, model, evaluators)
