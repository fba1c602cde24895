"""From the content of any weights file to what a given model loads."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dnl_d2.checkpoint.convert import convert, detect_source, fit_backbone, is_known
from dnl_d2.checkpoint.describe.architecture import describe
from dnl_d2.checkpoint.describe.words import group_dropped, shorten
from dnl_d2.checkpoint.input_format import adapt_input, published_format
from dnl_d2.checkpoint.keymap import State, is_wrapped, strip_prefix, unwrapped
from dnl_d2.checkpoint.reading import WeightsFile
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.errors import UsageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelWeights:
    """Weights under the names of a model.

    Args:
        state: parameters by the model's names.
        described: the model that the weights are of, in words.
        origin: key -> key of the file; those that are equal may be left out.
        matching: what Detectron2's checkpointer has to know to match names by its heuristics.
    """

    state: dict[str, Tensor]
    described: str
    origin: Mapping[str, str] = field(default_factory=dict)
    matching: Mapping[str, Any] = field(default_factory=dict)


def to_model(
    weights: WeightsFile, model: nn.Module, *, channel_order: str | None, heuristics: bool
) -> ModelWeights:
    """Translates the names of a public file, and fits its first convolution to the model's input.

    Args:
        weights: what the file holds.
        model: not wrapped by DistributedDataParallel.
        channel_order: ``RGB`` or ``BGR``, as images reach the model; None to tell it from the
            model's ``pixel_mean``.
        heuristics: whether Detectron2's heuristics are to match the names.

    Raises:
        UsageError: the file is of no model known here, or shares no parameter with ``model``.
    """
    state = {k: v for k, v in weights.state.items() if not k.endswith("_momentum")}
    own = strip_prefix(model.state_dict(), "module.")
    if not any(key in own and is_wrapped(key) for key in state):  # a compiled model's own file
        state = unwrapped(state, lambda names: any(key in own for key in names) or is_known(names))
    if heuristics or weights.rest.get("matching_heuristics"):
        return _matched("a file whose names Detectron2's heuristics match", state)
    source, origin = None, dict[str, str]()
    if not any(key in own for key in state):
        try:
            source = detect_source(state)
        except UsageError:
            if any(key.endswith("_w") for key in state):
                # A detector of Caffe2, whose names Detectron2 itself knows.
                return _matched("a Caffe2 detector", state, __author__="Caffe2")
            raise
        state, origin = _translated(state, source, own)
    settings = {} if source is None else source.settings_of(weights.rest, {})
    _compare_corners(model, settings)
    _compare_padding(model, settings, state)
    published = published_format(weights.rest, source)
    adapted = _adapted(model, state, published, channel_order)
    return ModelWeights(adapted, describe(state), origin)


def _matched(described: str, state: dict[str, Tensor], **more: str) -> ModelWeights:
    return ModelWeights(state, described, matching={"matching_heuristics": True, **more})


def _translated(
    state: State, source: Source, own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parameters under the model's names, and the file's key of each."""
    converted = convert(state, source)
    fitted = fit_backbone(converted.state, own)
    if not any(key in own for key in fitted):
        raise UsageError(
            f"a file of {source.title} ({describe(converted.state)}), of which this model has "
            "no parameter"
        )
    said = f"read as a file of {source.title}: {len(fitted)} parameters"
    for why, keys in group_dropped(converted).items():
        said += f"; {len(keys)} left out ({why}: {shorten(keys)})"
    _log.info(said)
    if converted.unexpected:
        _log.warning(
            f"{len(converted.unexpected)} tensors of the file are unknown and not used: "
            f"{shorten(converted.unexpected)}"
        )
    return fitted, fit_backbone(converted.origin, own)


def _adapted(
    model: nn.Module, state: State, published: InputFormat | None, channel_order: str | None
) -> dict[str, Tensor]:
    mean, std = (getattr(model, name, None) for name in ("pixel_mean", "pixel_std"))
    if published is None or mean is None or std is None:
        return dict(state)
    state, said, wrong = adapt_input(
        state,
        published,
        mean=mean.flatten().tolist(),
        std=std.flatten().tolist(),
        channel_order=channel_order,
    )
    if said:
        _log.log(logging.WARNING if wrong else logging.INFO, said)
    return state


def _compare_corners(model: nn.Module, settings: Mapping[str, Any]) -> None:
    own = getattr(getattr(model, "sem_seg_head", None), "align_corners", None)
    published = settings.get("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS")
    if None not in (own, published) and own != published:
        _log.warning(
            f"the published network has align_corners={published}, this model {own}: for its "
            "own outputs set MODEL.SEM_SEG_HEAD.ALIGN_CORNERS (LazyConfig: align_corners)"
        )


def _compare_padding(model: nn.Module, settings: Mapping[str, Any], state: State) -> None:
    counted = settings.get("MODEL.RESNETS.CONTEXT_MASK_PADDING") is False
    masked = any(getattr(module, "masks_padding", False) for module in model.modules())
    if counted and masked and any(".context." in key for key in state):
        _log.warning(
            "the published network lets the padding of a batch take part in its context "
            "blocks, this model does not: for its own outputs set "
            "MODEL.RESNETS.CONTEXT_MASK_PADDING False (LazyConfig: mask_padding)"
        )
