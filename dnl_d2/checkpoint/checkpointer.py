"""The one checkpointer: public files as they are, and its own written whole or not at all."""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import ParseResult, parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _filter_reused_missing_keys, _IncompatibleKeys
from torch import Tensor, nn

from dnl_d2.checkpoint.describe.architecture import describe
from dnl_d2.checkpoint.detectron2_zoo import cannot_be_fetched, resolve_weights
from dnl_d2.checkpoint.keymap import strip_prefix
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.checkpoint.run_checkpoints import BEST, newest_first
from dnl_d2.checkpoint.translate import to_model
from dnl_d2.checkpoint.unmatched import tell_of_unmatched
from dnl_d2.errors import UsageError, shortened
from dnl_d2.files import renamed_when_whole, write_text

_log = logging.getLogger(__name__)

_ANOTHER_FOLDER = (
    "start the new model in another output folder (OUTPUT_DIR, LazyConfig: train.output_dir)"
)


class UnreadableError(UsageError):
    """A file that is not there, or cannot be read: another one may do."""


class OtherModelError(UsageError):
    """A file that was read, but is of another model than it is loaded into."""


class Checkpointer(DetectionCheckpointer):
    """DetectionCheckpointer that reads public files safely, and loses no checkpoint.

    It takes files of every code base in :mod:`dnl_d2.checkpoint.sources`, names of Detectron2's
    model zoo and of published files. What it writes is whole or not there: a run that is killed, or
    whose disk is full, keeps the checkpoints that it had. At debug level it logs which key filled
    which parameter.

    Args:
        model: the model to load into and to save.
        save_dir: folder of the checkpoints.
        key: the config key that weights come from, for messages.
        channel_order: ``RGB`` or ``BGR``, as images reach the model; None to tell it from the
            model's ``pixel_mean``.
        checkpointables: see DetectionCheckpointer.

    Attributes:
        unfilled: parameters that the last file did not fill: absent there, or of another shape.
        described: the model that the last file seems to be of, in words.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        key: str = "MODEL.WEIGHTS",
        channel_order: str | None = None,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.key = key
        self.channel_order = channel_order if channel_order in ("RGB", "BGR") else None
        self.unfilled: tuple[str, ...] = ()
        self.described = ""
        self._origin: Mapping[str, str] = {}
        self._resumed_from = ""
        self._resuming = False
        self._needs_all = False  # or loading fails, and its message says what is lacking
        self._parsed_url_during_load: ParseResult | None = None

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes ``name``.pth with the model, what is to be resumed, and ``kwargs``.

        Raises:
            WriteError: the file cannot be written; an earlier one of that name stays.
            FloatingPointError: the model holds NaN or infinite values; likewise.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        resumed = {key: part.state_dict() for key, part in self.checkpointables.items()}
        weights = {
            key: value.contiguous() if isinstance(value, torch.Tensor) else value
            for key, value in self.model.state_dict().items()
        }
        content = {"model": weights, **resumed, **kwargs}
        path = os.path.join(self.save_dir, f"{name}.pth")
        _require_finite(content["model"], path)
        self.logger.info(f"Saving checkpoint to {path}")
        with renamed_when_whole(path, durable=True) as temporary:
            torch.save(content, temporary)
        if name != BEST:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Names the checkpoint that ``--resume`` goes on from."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_text(path, last_filename_basename, durable=True)
        self._resumed_from = ""

    def has_checkpoint(self) -> bool:
        """Whether the folder has a checkpoint of a run to go on from."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """The checkpoint that a run goes on from, or has gone on from; empty for none."""
        return self._resumed_from or next(self._to_resume_from(), "")

    def _to_resume_from(self) -> Iterator[str]:
        """The last checkpoint, and where that is not known or is broken the newest first."""
        last = super().get_checkpoint_file() if super().has_checkpoint() else ""
        if last:
            yield last
        if self.save_dir:
            yield from (path for path in newest_first(self.save_dir) if path != last)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Goes on from the last checkpoint of the folder, or loads weights.

        A checkpoint that cannot be read is passed over for the one before, with a warning.

        Args:
            path: file, address or zoo name to start from where there is nothing to resume; empty
                for none.
            resume: whether to go on from the last checkpoint if there is one.

        Returns:
            What the file holds besides.

        Raises:
            UsageError: the file is missing, unreadable, or of another model or run.
        """
        if not resume or not self.has_checkpoint():
            return self._load_from(resolve_weights(path, self.key), self.key)
        broken: UnreadableError | None = None
        for path in self._to_resume_from():
            if broken is not None:
                _log.warning(f"{broken}; going on from {os.path.basename(path)} instead")
            try:
                found = self._load_from(_to_resume(path), "--resume")
            except UnreadableError as error:
                broken = error
            else:
                self._resumed_from = path
                return found
        assert broken is not None  # there was one at least
        raise broken

    def _load_from(self, path: str, source: str) -> dict[str, Any]:
        resumed = source == "--resume"
        # What is resumed beside the model, such as momenta, fits no other model.
        self._resuming = resumed and bool(self.checkpointables)
        try:
            return self.load(path, None if resumed else [])
        except OtherModelError as error:
            remedy = f"; {_ANOTHER_FOLDER}" if resumed else ""
            raise UsageError(f"{source}: {path}: {error}{remedy}") from error
        except UsageError as error:
            raise type(error)(f"{source}: {error}") from error
        except Exception as error:  # the checkpoints' owners raise anything
            raise self._cannot_load(source, path, error) from error
        finally:
            self._resuming = False
            self._parsed_url_during_load = None  # DetectionCheckpointer keeps it after an error

    def load_whole(self, path: str, *, resume: bool = False, purpose: str = "--eval-only") -> None:
        """Loads weights that fill every parameter: no figure of random ones.

        An auxiliary head, which evaluation does not use, may be absent.

        Args:
            path, resume: see :meth:`resume_or_load`.
            purpose: what the weights are for, for messages.

        Raises:
            UsageError: as there, or no file, or parameters missing or of another shape.
        """
        if not path and not (resume and self.has_checkpoint()):
            if resume:
                raise UsageError(
                    f"{purpose} --resume: there is no checkpoint in {self.save_dir} "
                    "(OUTPUT_DIR, LazyConfig: train.output_dir)"
                )
            raise UsageError(f"{purpose} needs trained weights: set {self.key}")
        self._needs_all = True
        try:
            self.resume_or_load(path, resume=resume)
        finally:
            self._needs_all = False
        wrong = self._lacking()
        if wrong:
            raise UsageError(
                f"{purpose}: {len(wrong)} parameters are missing from the weights or have "
                f"another shape there, such as {wrong[0]!r}: the config is of another model; the "
                f"weights seem to be of {self.described}"
            )

    def _lacking(self) -> list[str]:
        """Parameters that an evaluation needs and the last file did not fill."""
        return [key for key in self.unfilled if ".auxiliary." not in key]

    def _cannot_load(self, source: str, path: str, error: Exception) -> UsageError:
        if "://" in path:
            return cannot_be_fetched(path, source, error)
        reason = " ".join(str(error).split())[:200]
        return UsageError(
            f"{source}: {path!r} cannot be loaded into this model or run "
            f"({type(error).__name__}: {reason})"
        )

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Reads and, where the names are not the model's, translates a file."""
        try:
            weights = read_weights(filename)
        except UsageError as error:
            raise UnreadableError(str(error)) from error
        assert self._parsed_url_during_load is not None  # load() has set it
        query = parse_qs(self._parsed_url_during_load.query)
        try:
            found = to_model(
                weights,
                self.model,
                channel_order=self.channel_order,
                heuristics=query.get("matching_heuristics") == ["True"],
            )
        except UsageError as error:
            raise UsageError(f"{filename}: {shortened(error)}") from error
        self.described, self._origin = found.described, found.origin
        return {**weights.rest, **found.matching, "model": found.state}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        keys = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        shapes = {key: f"{a} there, {b} here" for key, a, b in incompatible.incorrect_shapes}
        self.unfilled = tuple(dict.fromkeys([*incompatible.missing_keys, *shapes]))
        state = self.model.state_dict()
        filled = [
            f"{key} <- {self._origin.get(key, key)}"
            for key in keys
            if key in state and key not in shapes
        ]
        _log.debug("parameters and the keys that filled them:\n%s", "\n".join(filled))
        wrong = [key for key in self.unfilled if not key.endswith("num_batches_tracked")]
        if self._resuming and wrong:
            first = next(iter(shapes), wrong[0])
            raise OtherModelError(
                f"of another model than the config's: {first!r} is {shapes.get(first, 'missing')}"
            )
        if len(shapes) > len(state) - len(self.unfilled):
            key = next(iter(shapes))
            raise OtherModelError(
                f"{len(shapes)} parameters, more than half of those that both have, have another "
                f"shape, such as {key!r} ({shapes[key]}): the weights seem to be of "
                f"{self.described}, the config of {describe(strip_prefix(state, 'module.'))}"
            )
        return incompatible

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        missing = _filter_reused_missing_keys(self.model, incompatible.missing_keys)
        failing = self._needs_all and bool(self._lacking())
        tell_of_unmatched(incompatible, missing, in_full_only=failing)


def _to_resume(path: str) -> str:
    try:
        return resolve_weights(path, "--resume")
    except UsageError as error:
        raise UnreadableError(str(error)) from error


def _require_finite(state: Mapping[str, Any], path: str) -> None:
    wrong = [
        key
        for key, value in state.items()
        if isinstance(value, Tensor) and not torch.isfinite(value).all()
    ]
    if wrong:
        raise FloatingPointError(
            f"{path} is not written, as {len(wrong)} of {len(state)} tensors hold NaN or infinite "
            f"values, such as {wrong[0]!r}"
        )
