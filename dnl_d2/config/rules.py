"""Values of a config that no type can check: found wrong before anything is built."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from numbers import Real
from operator import attrgetter
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import BACKBONE_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.utils.registry import Registry
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError, InterpolationKeyError

from dnl_d2.config.keys import FULL_MODEL
from dnl_d2.errors import UsageError
from dnl_d2.layers import get_norm as block_norm

# What a value must be: a test, and the words for it.
Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _all_numbers(values: Any, above: float = float("-inf")) -> bool:
    listed = isinstance(values, (list, tuple)) or OmegaConf.is_list(values)
    return listed and all(_is_number(v) and v > above for v in values)


def _builds(build: Callable, *arguments: Any) -> bool:
    try:
        build(*arguments)
    except Exception:  # whatever a name that is none leads to
        return False
    return True


POSITIVE_COUNT: Rule = (lambda v: _is_count(v, 1), "a whole number of at least 1")
COUNT: Rule = (lambda v: _is_count(v, 0), "a whole number of at least 0")
WHOLE: Rule = (lambda v: _is_count(v, -(2**62)), "a whole number")
POSITIVE: Rule = (lambda v: _is_number(v) and v > 0, "a number above 0")
NOT_NEGATIVE: Rule = (lambda v: _is_number(v) and v >= 0, "a number of at least 0")
SHARE: Rule = (lambda v: _is_number(v) and 0 < v <= 1, "a share above 0, and 1 at most")
NUMBERS: Rule = (lambda v: _all_numbers(v) and len(v) >= 1, "a list of numbers")
POSITIVES: Rule = (lambda v: _all_numbers(v, 0) and len(v) >= 1, "a list of numbers above 0")
SIZE: Rule = (lambda v: _all_numbers(v, 0) and len(v) in (0, 2), "two numbers above 0, or empty")
PATH: Rule = (
    lambda v: isinstance(v, str) and v[:1] not in ("", "~"),
    "a folder, written out instead of ~",
)
DEVICE: Rule = (lambda v: _builds(torch.device, v), "a device of PyTorch, such as cuda or cpu")
NORM: Rule = (
    lambda v: _builds(get_norm, v, 32),
    'a norm of Detectron2, such as SyncBN, BN, GN, FrozenBN or ""',
)
CLIP_TYPE: Rule = (lambda v: v in ("value", "norm", FULL_MODEL), f"value, norm or {FULL_MODEL}")
RESNET_NORM: Rule = (lambda v: _builds(block_norm, v, 32), f"{NORM[1]}, or fixBN")
STEPS: Rule = (
    lambda v: all(_is_count(a, 0) for a in v) and all(a < b for a, b in pairwise(v)),
    "whole numbers in ascending order",
)
SIDES: Rule = (
    lambda v: _all_numbers(v) and bool(v) and all(_is_count(s, 0) for s in v),
    "whole numbers of at least 0 (0 keeps the size)",
)
FORMATS = ("RGB", "BGR", "L", "YUV-BT.601")  # of detectron2.data.detection_utils.read_image
FORMAT: Rule = (lambda v: v in FORMATS, f"one of {', '.join(FORMATS)}")
TEXT: Rule = (lambda v: isinstance(v, str), "a text")
MAPPING: Rule = (OmegaConf.is_dict, "keys with values")
FLAG: Rule = (lambda v: isinstance(v, bool), "true or false")
OPTIMIZER: Rule = (lambda v: str(v).upper() in ("SGD", "ADAM", "ADAMW"), "SGD, Adam or AdamW")
PRECISIONS = ("float32", "bfloat16", "float16")  # that a model can predict in
PRECISION: Rule = (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
MASK_FORMAT: Rule = (lambda v: v in ("polygon", "bitmask"), "polygon or bitmask")

_AUGMENTATIONS = "dataloader.train.mapper.augmentations"
# What Detectron2 would take without a word, and what ends in a traceback there: the key of a YAML
# config, that of a LazyConfig, and the rule for both.
_RULES: tuple[tuple[str | None, str | None, Rule], ...] = (
    ("OUTPUT_DIR", "train.output_dir", PATH),
    ("MODEL.DEVICE", "train.device", DEVICE),
    ("MODEL.PIXEL_MEAN", None, NUMBERS),
    ("MODEL.PIXEL_STD", None, POSITIVES),
    ("MODEL.RESNETS.NORM", "model.backbone.norm", RESNET_NORM),
    (None, "model.backbone.bottom_up.norm", RESNET_NORM),
    ("MODEL.FPN.NORM", None, NORM),
    ("MODEL.ROI_BOX_HEAD.NORM", None, NORM),
    ("MODEL.ROI_MASK_HEAD.NORM", None, NORM),
    ("MODEL.SEM_SEG_HEAD.NORM", None, NORM),
    ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "model.sem_seg_head.loss_weight", NOT_NEGATIVE),
    (
        "MODEL.SEM_SEG_HEAD.AUXILIARY.LOSS_WEIGHT",
        "model.sem_seg_head.auxiliary.loss_weight",
        NOT_NEGATIVE,
    ),
    ("INPUT.FORMAT", None, FORMAT),
    ("INPUT.CACHE_DIR", "dataloader.train.mapper.cache_dir", TEXT),
    ("INPUT.MASK_FORMAT", None, MASK_FORMAT),
    ("INPUT.MIN_SIZE_TRAIN", None, SIDES),
    ("INPUT.RESIZE.BASE_SIZE", f"{_AUGMENTATIONS}.base_size", SIZE),
    ("INPUT.RESIZE.RATIO_RANGE", None, POSITIVES),
    (None, f"{_AUGMENTATIONS}.crop_size", SIZE),
    ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", f"{_AUGMENTATIONS}.max_category_area", SHARE),
    ("DATALOADER.NUM_WORKERS", "dataloader.train.num_workers", COUNT),
    (None, "dataloader.test.num_workers", COUNT),
    ("SOLVER.IMS_PER_BATCH", "dataloader.train.total_batch_size", POSITIVE_COUNT),
    (None, "train.reference_batch_size", COUNT),
    (None, "train.accumulate", POSITIVE_COUNT),
    ("SOLVER.MAX_ITER", "train.max_iter", POSITIVE_COUNT),
    ("SOLVER.STEPS", None, STEPS),
    ("SOLVER.CHECKPOINT_PERIOD", "train.checkpointer.period", POSITIVE_COUNT),
    ("SOLVER.CHECKPOINTS_TO_KEEP", "train.checkpointer.max_to_keep", COUNT),
    ("SOLVER.LOG_PERIOD", "train.log_period", POSITIVE_COUNT),
    ("SOLVER.OPTIMIZER", None, OPTIMIZER),
    ("SOLVER.BASE_LR", "optimizer.lr", POSITIVE),
    ("SOLVER.MIN_LR", None, NOT_NEGATIVE),
    ("SOLVER.POLY_LR_POWER", "lr_multiplier.power", NOT_NEGATIVE),
    (None, "train.clip_norm", NOT_NEGATIVE),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", None, CLIP_TYPE),
    ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", None, POSITIVE),
    (None, "train.amp.enabled", FLAG),
    ("SOLVER.SKIP_NONFINITE", "train.skip_nonfinite", COUNT),
    ("SOLVER.CHANNELS_LAST", "train.channels_last", FLAG),
    ("SOLVER.COMPILE", "train.compile", FLAG),
    (None, "train.cudnn_benchmark", FLAG),
    (None, "train.amp.dtype", TEXT),
    (None, "train.ddp", MAPPING),
    ("SOLVER.DDP.BROADCAST_BUFFERS", "train.ddp.broadcast_buffers", FLAG),
    ("SOLVER.DDP.FIND_UNUSED_PARAMETERS", "train.ddp.find_unused_parameters", FLAG),
    ("SOLVER.DDP.FP16_COMPRESSION", "train.ddp.fp16_compression", FLAG),
    (None, "train.init_checkpoint", TEXT),
    (None, "train.seed", WHOLE),
    (None, "train.check_labels", COUNT),
    ("TEST.EVAL_PERIOD", "train.eval_period", COUNT),
    ("TEST.EVAL_PICTURES", "train.eval_pictures", COUNT),
    ("TEST.PRECISION", "train.eval_precision", PRECISION),
    ("WANDB.PROJECT", "train.wandb.project", TEXT),
    ("WANDB.NAME", "train.wandb.name", TEXT),
    ("TEST.AUG.SCALES", "dataloader.test.mapper.multi_scale_flip.scales", POSITIVES),
    (None, "dataloader.test_augmentation.enabled", FLAG),
    (None, "dataloader.test_augmentation.min_sizes", SIDES),
    (None, "dataloader.test_augmentation.max_size", POSITIVE_COUNT),
    (None, "dataloader.test_augmentation.flip", FLAG),
    ("TEST.SLIDE.WINDOW", "model.slide_window", SIZE),
    ("TEST.SLIDE.STRIDE", "model.slide_stride", SIZE),
)
_YAML = {key: rule for key, _, rule in _RULES if key}
_LAZY = {key: rule for _, key, rule in _RULES if key}


def require_device(device: str, key: str) -> None:
    """Raises :class:`UsageError` where a CUDA device is asked for and there is none."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"{key} is {device}, but PyTorch finds no CUDA device here: set {key} to cpu"
        )


def check_yaml(cfg: CfgNode) -> None:
    """Raises :class:`UsageError` for the first value that cannot be meant, naming its key."""
    if "SLIDE" not in cfg.TEST:
        raise UsageError("the config has no keys of dnl_d2: call dnl_d2.add_dnl_config(cfg) first")
    _check({key: select_yaml(cfg, key) for key in _YAML}, _YAML)
    if cfg.TEST.AUG.ENABLED:
        _check({"TEST.AUG.MIN_SIZES": cfg.TEST.AUG.MIN_SIZES}, {"TEST.AUG.MIN_SIZES": SIDES})
    if len(cfg.TEST.SLIDE.WINDOW) and cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        raise UsageError(
            "TEST.SLIDE.WINDOW: SemanticSegmentor does not slide; set MODEL.META_ARCHITECTURE "
            "to ContextSegmentor"
        )
    _check_backbone(cfg)
    _check_fixed_norm(cfg)
    _check_cascade(cfg)
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "PolyLR" and solver.MIN_LR > solver.BASE_LR:
        raise UsageError(
            f"SOLVER.MIN_LR {solver.MIN_LR:g} is above SOLVER.BASE_LR {solver.BASE_LR:g}, from "
            "which the schedule comes down: lower it too"
        )


def _is_of_detectron2(registry: Registry, name: str) -> bool:
    """What others register may know the keys of this library."""
    return name in registry and registry.get(name).__module__.startswith("detectron2.")


def _check_backbone(cfg: CfgNode) -> None:
    """Backbones that are not this library's leave out, without a word, what they do not know."""
    resnet = cfg.MODEL.RESNETS
    unknown = {
        "CONTEXT.NAME": resnet.CONTEXT.NAME,
        "CONTEXT_STAGES": any(resnet.CONTEXT_STAGES.values()),
        "NORM fixBN": resnet.NORM == "fixBN",
        "SHORTCUT": resnet.SHORTCUT != "conv",
        "OUTPUT_STRIDE": resnet.OUTPUT_STRIDE != 32,
    }
    used = [key for key, value in unknown.items() if value]
    if used and _is_of_detectron2(BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME):
        raise UsageError(
            f"MODEL.RESNETS.{used[0]}: MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} does not "
            "know it, use build_context_resnet_fpn_backbone or another of this library's"
        )


def _check_cascade(cfg: CfgNode) -> None:
    weights = list(cfg.MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS)
    if weights != [1.0, 0.5, 0.25] and _is_of_detectron2(
        ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME
    ):
        raise UsageError(
            "MODEL.ROI_BOX_CASCADE_HEAD.STAGE_LOSS_WEIGHTS: MODEL.ROI_HEADS.NAME "
            f"{cfg.MODEL.ROI_HEADS.NAME} does not know them, use MeanCascadeROIHeads"
        )


def _check_fixed_norm(cfg: CfgNode) -> None:
    """In a C4 model res5 is Detectron2's, which does not know fixBN."""
    model = cfg.MODEL
    parts = model.META_ARCHITECTURE, model.ROI_HEADS.NAME, model.RESNETS.NORM
    if parts == ("GeneralizedRCNN", "Res5ROIHeads", "fixBN"):
        raise UsageError(
            "MODEL.RESNETS.NORM fixBN: MODEL.ROI_HEADS.NAME Res5ROIHeads does not know it, use "
            "FrozenBN or BN"
        )


def check_lazy(cfg: DictConfig) -> None:
    """As :func:`check_yaml`; None stands for what a function has by itself."""
    if not OmegaConf.is_dict(select_lazy(cfg, "train")):
        raise UsageError("train is missing: start from configs/common/train.py")
    values = {key: select_lazy(cfg, key) for key in _LAZY}
    _check({key: value for key, value in values.items() if value is not None}, _LAZY)


def _check(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for key, value in values.items():
        allowed, words = rules[key]
        if not allowed(value):
            raise UsageError(f"{key} is {value!r}: use {words}")


def select_yaml(cfg: CfgNode, key: str) -> Any:
    """A value of a YAML config, by its key with points."""
    return attrgetter(key)(cfg)


def select_lazy(cfg: DictConfig, key: str) -> Any:
    """A value of a LazyConfig; None where there is none, or one that refers to what is not there.

    A list may be on the way, such as Detectron2's augmentations.
    """
    try:
        return OmegaConf.select(cfg, key)
    except (ConfigTypeError, InterpolationKeyError):
        return None
