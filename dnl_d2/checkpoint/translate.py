"""From the content of any weights file to what a given model loads."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dnl_d2.checkpoint.convert import convert, detect_source, fit_backbone, is_known
from dnl_d2.checkpoint.describe.architecture import describe
from dnl_d2.checkpoint.describe.words import group_dropped, shorten
from dnl_d2.checkpoint.hidden_settings import differences
from dnl_d2.checkpoint.input_format import FIRST_CONVOLUTIONS, adapt_input, published_format
from dnl_d2.checkpoint.keymap import State, is_wrapped, strip_prefix, unwrapped
from dnl_d2.checkpoint.reading import WeightsFile
from dnl_d2.checkpoint.source import Source
from dnl_d2.checkpoint.sources.detectron2 import BARE
from dnl_d2.checkpoint.zoo_settings import TrainedWith, zoo_settings
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
    flagged = weights.rest.get("matching_heuristics")
    if heuristics or (flagged and not _is_bare_resnet(state, own)):
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
    adapted = _fitted(model, state, _trained_with(weights, state, source), channel_order)
    return ModelWeights(_inflated(adapted, own), describe(state), origin)


def _inflated(state: State, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """2-d convolutions for a model that has 3-d ones in their place (arXiv 1705.07750, 3.1).

    A kernel is repeated along time and divided by its length: on a clip whose frames are all alike
    it computes what it does on one of them.
    """
    inflated = {}
    for key, weight in state.items():
        shape = own[key].shape if key in own else ()
        if len(shape) == 5 and weight.dim() == 4 and (*shape[:2], *shape[3:]) == weight.shape:
            length = shape[2]
            inflated[key] = weight[:, :, None].expand(-1, -1, length, -1, -1) / length
    if inflated:
        _log.info(f"{len(inflated)} convolutions of images inflated for clips")
    return {**state, **inflated}


def _is_bare_resnet(state: State, own: Mapping[str, Tensor]) -> bool:
    """Whether a file has the names of Detectron2's ResNet, and the model such a backbone."""
    return is_known(state, [BARE]) and any(key in own for key in FIRST_CONVOLUTIONS)


def _matched(described: str, state: dict[str, Tensor], **more: str) -> ModelWeights:
    return ModelWeights(state, described, matching={"matching_heuristics": True, **more})


def _translated(
    state: State, source: Source, own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The parameters under the model's names, and the file's key of each."""
    converted = convert(state, source, classifier="classifier.weight" in own)
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


def _trained_with(weights: WeightsFile, state: State, source: Source | None) -> TrainedWith | None:
    """What is known of a file beside its parameters; None for nothing."""
    known = zoo_settings(weights.path, weights.rest)
    if known is not None:
        return known
    fed = published_format(weights.rest, source)
    settings = (
        {} if source is None else source.settings_of(weights.rest, _resnet_settings(state, source))
    )
    title = "the published network" if source is None else f"a file of {source.title}"
    return TrainedWith(title, fed, settings) if fed or settings else None


def _resnet_settings(state: State, source: Source) -> dict[str, Any]:
    """What the shapes show of a ResNet, and how it strides by default."""
    if source.input_format is None:  # Detectron2's, which stride in either
        return {}
    weight = next((v for k, v in state.items() if k.endswith("res2.0.conv2.weight")), None)
    groups = 1 if weight is None else weight.shape[0] // weight.shape[1]
    norm = "BN" if any(key.endswith("norm.running_mean") for key in state) else "GN"
    return {
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.SHORTCUT": "conv",
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.NORM": norm,
    }


def _fitted(
    model: nn.Module, state: State, trained: TrainedWith | None, channel_order: str | None
) -> dict[str, Tensor]:
    """Fits the first convolution to the model's input; warns of what else differs, in one line."""
    if trained is None:
        return dict(state)
    wrong = differences(model, state, trained.settings)
    mean, std = (getattr(model, name, None) for name in ("pixel_mean", "pixel_std"))
    if trained.input_format is not None and mean is not None and std is not None:
        state, said, unlike = adapt_input(
            state,
            trained.input_format,
            mean=mean.flatten().tolist(),
            std=std.flatten().tolist(),
            channel_order=channel_order,
        )
        if unlike:
            wrong.insert(0, said)
        elif said:
            _log.info(said)
    if wrong:
        _log.warning(
            f"{trained.title} was trained with other settings than this model has, which changes "
            f"its outputs: set {', '.join(wrong)}"
        )
    return dict(state)
