"""A checkpointer that takes public files as they are, beside Detectron2's and our own."""

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from dnl_d2.checkpoint.convert import convert, detect_source, fit_backbone
from dnl_d2.checkpoint.describe.architecture import describe
from dnl_d2.checkpoint.describe.words import group_dropped, shorten
from dnl_d2.checkpoint.input_format import adapt_input, published_format
from dnl_d2.checkpoint.keymap import State, strip_prefix
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.errors import UsageError

_log = logging.getLogger(__name__)


class OtherModelError(UsageError):
    """A file that was read, but is of another model than it is loaded into."""


class PublicCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that reads safely and translates the keys of public files.

    Args:
        model: the model to load into.
        save_dir: see DetectionCheckpointer.
        channel_order: ``RGB`` or ``BGR``, as images reach the model; None to tell it from the
            model's ``pixel_mean``.
        whole: refuse a file that does not fill the whole model, as a run that goes on needs.
        checkpointables: see DetectionCheckpointer.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        channel_order: str | None = None,
        whole: bool = False,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.channel_order = channel_order if channel_order in ("RGB", "BGR") else None
        self.whole = whole
        # Parameters that the last file did not fill: absent from it, or of another shape there.
        self.unfilled: tuple[str, ...] = ()
        # The model that the last file seems to be of, in words.
        self.described = ""

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Reads and, where the names are not the model's, translates a file."""
        weights = read_weights(filename)
        state = {k: v for k, v in weights.state.items() if not k.endswith("_momentum")}
        state = strip_prefix(state, "module.")
        content = {**weights.rest, "model": state}
        if weights.rest.get("matching_heuristics") or self._asks_for_heuristics():
            self.described = "a file whose names Detectron2's heuristics match"
            return content | {"matching_heuristics": True}
        model = strip_prefix(self.model.state_dict(), "module.")
        source = None
        if not any(key in model for key in state):
            try:
                source = detect_source(state)
                state = self._translate(state, source, model)
            except UsageError as error:
                if source is None and any(key.endswith("_w") for key in state):
                    # A detector of Caffe2, whose names Detectron2 itself knows.
                    return content | {"__author__": "Caffe2", "matching_heuristics": True}
                raise UsageError(f"{filename}: {error}") from error
        settings = {} if source is None else source.settings_of(weights.rest, {})
        self._compare_corners(settings)
        self._compare_padding(settings, state)
        self.described = describe(state)
        return content | {"model": self._adapt(state, published_format(weights.rest, source))}

    def _asks_for_heuristics(self) -> bool:
        return parse_qs(self._parsed_url_during_load.query).get("matching_heuristics") == ["True"]

    def _translate(
        self, state: State, source: Source, model: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        converted = convert(state, source)
        fitted = fit_backbone(converted.state, model)
        if not any(key in model for key in fitted):
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
        return fitted

    def _adapt(self, state: State, published: InputFormat | None) -> dict[str, Tensor]:
        module = getattr(self.model, "module", self.model)
        mean, std = (getattr(module, name, None) for name in ("pixel_mean", "pixel_std"))
        if published is None or mean is None or std is None:
            return dict(state)
        state, said, wrong = adapt_input(
            state,
            published,
            mean=mean.flatten().tolist(),
            std=std.flatten().tolist(),
            channel_order=self.channel_order,
        )
        if said:
            _log.log(logging.WARNING if wrong else logging.INFO, said)
        return state

    def _compare_corners(self, settings: Mapping[str, Any]) -> None:
        head = getattr(getattr(self.model, "module", self.model), "sem_seg_head", None)
        own = getattr(head, "align_corners", None)
        published = settings.get("MODEL.SEM_SEG_HEAD.ALIGN_CORNERS")
        if None not in (own, published) and own != published:
            _log.warning(
                f"the published network has align_corners={published}, this model {own}: for its "
                "own outputs set MODEL.SEM_SEG_HEAD.ALIGN_CORNERS (LazyConfig: align_corners)"
            )

    def _compare_padding(self, settings: Mapping[str, Any], state: State) -> None:
        counted = settings.get("MODEL.RESNETS.CONTEXT_MASK_PADDING") is False
        masked = any(getattr(module, "masks_padding", False) for module in self.model.modules())
        if counted and masked and any(".context." in key for key in state):
            _log.warning(
                "the published network lets the padding of a batch take part in its context "
                "blocks, this model does not: for its own outputs set "
                "MODEL.RESNETS.CONTEXT_MASK_PADDING False (LazyConfig: mask_padding)"
            )

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        incompatible = super()._load_model(checkpoint)
        shapes = {key: f"{a} there, {b} here" for key, a, b in incompatible.incorrect_shapes}
        self.unfilled = tuple(dict.fromkeys([*incompatible.missing_keys, *shapes]))
        wrong = [key for key in self.unfilled if not key.endswith("num_batches_tracked")]
        if self.whole and wrong:
            first = next(iter(shapes), wrong[0])
            raise OtherModelError(
                f"of another model than the config's: {first!r} is {shapes.get(first, 'missing')}"
            )
        state = self.model.state_dict()
        if len(shapes) > len(state) - len(self.unfilled):
            key = next(iter(shapes))
            raise OtherModelError(
                f"{len(shapes)} parameters, more than half of those that both have, have another "
                f"shape, such as {key!r} ({shapes[key]}): the weights seem to be of "
                f"{self.described}, the config of {describe(strip_prefix(state, 'module.'))}"
            )
        return incompatible
