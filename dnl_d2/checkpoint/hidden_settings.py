"""Settings of a model that no parameter shows, compared with those that a file was trained with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor, nn

from dnl_d2.checkpoint.keymap import State

Read = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class HiddenSetting:
    """A config key whose value a model has, but none of its parameters.

    Args:
        key: of a YAML config.
        lazy: the argument in a LazyConfig, and where it is in Detectron2's own, after ``model.``.
        parts: where the parameters that depend on it are; empty for anywhere.
        read: the value of a model; None where it has no such part.
    """

    key: str
    lazy: str
    parts: tuple[str, ...]
    read: Read

    @property
    def argument(self) -> str:
        """The name of the argument, in the heads of a detector with that of its owner."""
        parts = self.lazy.split(".")
        return ".".join(
            parts[-2:] if parts[0] in ("proposal_generator", "roi_heads") else parts[-1:]
        )

    def differs(self, model: nn.Module, trained: Any) -> bool:
        """Whether a model has another value than its weights were trained with."""
        own = self.read(model)
        return own is not None and not _equal(own, trained)


def differences(model: nn.Module, state: State, trained: Mapping[str, Any]) -> list[str]:
    """What to set, as ``KEY (LazyConfig: argument) value``, for the outputs that weights stand for.

    Args:
        model: that the weights are for.
        state: the weights, under the model's names.
        trained: YAML keys and values of the model that they were trained in.
    """
    own = model.state_dict()
    shared = [key for key, value in state.items() if key in own and value.shape == own[key].shape]
    relevant = [
        setting for setting in SETTINGS
        if setting.key in trained and any(key.startswith(setting.parts or "") for key in shared)
    ]  # fmt: skip
    wrong = [s for s in relevant if s.differs(model, trained[s.key])]
    if any(s.key in _ANCHORS for s in relevant) and _other_anchors(model, trained):
        wrong += [s for s in relevant if s.key in _ANCHORS]
    return [f"{s.key} (LazyConfig: {s.argument}) {_text(trained[s.key])}" for s in wrong]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float):
        return abs(one - other) <= 5e-3 * max(abs(other), 1e-6)  # means are rounded differently
    return one == other


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first(model: nn.Module, kind: type | tuple[type, ...]) -> Any:
    return next((module for module in model.modules() if isinstance(module, kind)), None)


def _bottlenecks(model: nn.Module) -> Iterator[nn.Module]:
    """The first blocks of the stages that stride."""
    for name, module in model.named_modules():
        if name.endswith(("res3.0", "res4.0", "res5.0")) and hasattr(module, "conv3"):
            yield module


def _pixel_mean(model: nn.Module) -> list[float] | None:
    mean = getattr(model, "pixel_mean", None)
    return None if mean is None or mean.is_meta else [round(v, 3) for v in mean.flatten().tolist()]


def _stride_in_1x1(model: nn.Module) -> bool | None:
    for block in _bottlenecks(model):
        first, second = (getattr(block, conv).stride for conv in ("conv1", "conv2"))
        if first != second:  # one of a dilated stage has no stride
            return max(first) > max(second)
    return None


def _shortcut(model: nn.Module) -> str | None:
    blocks = [*_bottlenecks(model)]
    pooled = any(isinstance(part, nn.AvgPool2d) for block in blocks for part in block.children())
    return ("avg_pool" if pooled else "conv") if blocks else None


def _masks_padding(model: nn.Module) -> bool | None:
    if not any(".context." in name for name, _ in model.named_parameters()):
        return None
    return any(getattr(module, "masks_padding", False) for module in model.modules())


def _anchor_generator(model: nn.Module) -> str | None:
    generator = _first(model, DefaultAnchorGenerator)
    return None if generator is None else type(generator).__name__


def _other_anchors(model: nn.Module, trained: Mapping[str, Any]) -> bool:
    """Whether the sizes and shapes of another config give other anchors to the model's cells."""
    generator = _first(model, DefaultAnchorGenerator)
    own = [*generator.cell_anchors] if generator is not None else []
    if not own or own[0].is_meta:
        return False
    sizes, ratios = (trained[key] for key in _ANCHORS)
    try:
        make = type(generator)(sizes=sizes, aspect_ratios=ratios, strides=generator.strides)
    except (AssertionError, TypeError):  # of another number of levels, or a class of one's own
        return True
    return not all(map(_close, own, make.cell_anchors))


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.cpu(), other, atol=0.5)


def _pooler(head: str, attribute: str) -> Read:
    """What an RoI pooler of ``roi_heads`` does."""

    def read(model: nn.Module) -> Any:
        heads = getattr(model, "roi_heads", None)
        pooler = getattr(heads, f"{head}_pooler", None) or getattr(heads, "pooler", None)
        level = next(iter(getattr(pooler, "level_poolers", ())), None)
        value = getattr(level, attribute, None)
        if attribute != "aligned" or value is None:
            return value
        return "ROIAlignV2" if value else "ROIAlign"

    return read


def _box_weights(model: nn.Module) -> list[float] | None:
    return _weights_of(getattr(getattr(model, "roi_heads", None), "box_predictor", None))


def _weights_of(predictor: Any) -> list[float] | None:
    weights = getattr(getattr(predictor, "box2box_transform", None), "weights", None)
    return None if weights is None else [float(weight) for weight in weights]


def _cascade_box_weights(model: nn.Module) -> list[list[float] | None] | None:
    predictors = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    return [*map(_weights_of, predictors)] if isinstance(predictors, nn.ModuleList) else None


def _corners(model: nn.Module) -> bool | None:
    return getattr(getattr(model, "sem_seg_head", None), "align_corners", None)


_RPN = ("proposal_generator.", "head.")
_BOX, _MASK = ("roi_heads.box", "roi_heads.res5"), ("roi_heads.mask",)
_GENERATOR = "proposal_generator.anchor_generator"
_ANCHORS = ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")
SETTINGS = (
    HiddenSetting("MODEL.PIXEL_MEAN", "pixel_mean", ("backbone.",), _pixel_mean),
    HiddenSetting(
        "MODEL.RESNETS.STRIDE_IN_1X1",
        "backbone.bottom_up.stages.stride_in_1x1", ("backbone.",), _stride_in_1x1,
    ),
    HiddenSetting("MODEL.RESNETS.SHORTCUT", "backbone.shortcut", ("backbone.",), _shortcut),
    HiddenSetting(
        "MODEL.RESNETS.CONTEXT_MASK_PADDING", "backbone.mask_padding", (), _masks_padding,
    ),
    HiddenSetting(
        "MODEL.ANCHOR_GENERATOR.NAME", f"{_GENERATOR}._target_", _RPN, _anchor_generator,
    ),
    HiddenSetting(_ANCHORS[0], f"{_GENERATOR}.sizes", _RPN, lambda model: None),
    HiddenSetting(_ANCHORS[1], f"{_GENERATOR}.aspect_ratios", _RPN, lambda model: None),
    HiddenSetting(
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "roi_heads.box_pooler.pooler_type", _BOX,
        _pooler("box", "aligned"),
    ),
    HiddenSetting(
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "roi_heads.box_pooler.sampling_ratio", _BOX,
        _pooler("box", "sampling_ratio"),
    ),
    HiddenSetting(
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "roi_heads.mask_pooler.pooler_type", _MASK,
        _pooler("mask", "aligned"),
    ),
    HiddenSetting(
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", "roi_heads.mask_pooler.sampling_ratio", _MASK,
        _pooler("mask", "sampling_ratio"),
    ),
    HiddenSetting(
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "roi_heads.box_predictor.box2box_transform.weights", _BOX, _box_weights,
    ),
    HiddenSetting(
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", "roi_heads.box_predictors", _BOX,
        _cascade_box_weights,
    ),
    HiddenSetting(
        "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", "sem_seg_head.align_corners", ("sem_seg_head.",),
        _corners,
    ),
)  # fmt: skip
