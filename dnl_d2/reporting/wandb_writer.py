"""Weights & Biases as one more writer of a run's events."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf

from dnl_d2.errors import UsageError
from dnl_d2.files import write_text
from dnl_d2.reporting.aside import only_warning, random_state_kept

FOLDER = "wandb"  # of W&B's files, below the output folder
_ID = "run_id.txt"


class WandbWriter(EventWriter):
    """Sends figures, pictures and the config of a run to Weights & Biases.

    Its place is before writers that clear the pictures, as the TensorboardXWriter does.
    ``$WANDB_MODE``, ``$WANDB_ENTITY`` and so on are W&B's own.

    Args:
        folder: the run's; W&B writes below it.
        project, name: at W&B.
        config: of the run.
        key: the config key of the project, for messages.
        window: values that figures are medians of, as Detectron2's writers take them.

    Raises:
        UsageError: the package is missing.
    """

    def __init__(
        self,
        folder: str,
        *,
        project: str,
        name: str,
        config: CfgNode | DictConfig,
        key: str,
        window: int = 20,
    ):
        try:
            import wandb
        except ImportError as error:
            raise UsageError(
                f"{key} {project}: Weights & Biases is not installed ({error}): "
                "pip install wandb, or the extra dnl_d2[wandb]; or leave the key empty"
            ) from error
        self._wandb = wandb
        self._folder = folder
        self._options = {"project": project, "name": name, "config": _plain(config)}
        self._key = key
        self._window = window
        self._run: Any = None
        self._written = -1

    def start(self, *, resumed: bool) -> None:
        """Starts the record, or goes on with that of the run which this one resumes.

        Raises:
            UsageError: W&B refuses, for want of a login for instance.
        """
        number = self._id(resumed=resumed)
        try:
            with random_state_kept(), _cache_below(self._folder):
                self._run = self._wandb.init(
                    dir=self._folder, id=number, resume="allow", **self._options
                )
        except self._wandb.errors.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{self._key}: Weights & Biases cannot start ({reason}): log in with `wandb "
                "login`, set WANDB_MODE=offline, or leave the key empty"
            ) from error
        # Iterations, not calls, are what curves are drawn over: a resumed run repeats some.
        self._run.define_metric("*", step_metric="iteration")

    def write(self) -> None:
        if self._run is None:
            return
        storage = get_event_storage()
        found: dict[int, dict[str, Any]] = {}
        latest = storage.latest_with_smoothing_hint(self._window)
        for name, (value, iteration) in latest.items():
            if iteration > self._written:
                found.setdefault(iteration, {})[name] = value
        self._written = max([self._written, *found])
        with only_warning("nothing is sent to Weights & Biases"):
            for name, picture, iteration in storage._vis_data:  # as Detectron2's own writers do
                found.setdefault(iteration, {})[name] = self._wandb.Image(
                    np.asarray(picture).transpose(1, 2, 0)
                )
            for iteration in sorted(found):
                self._run.log({"iteration": iteration, **found[iteration]})

    def close(self) -> None:
        """Ends the record."""
        if self._run is not None:
            with only_warning("the record of Weights & Biases is not closed"):
                self._run.finish()
            self._run = None

    def _id(self, *, resumed: bool) -> str:
        path = os.path.join(self._folder, FOLDER, _ID)
        if resumed and os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        os.makedirs(os.path.dirname(path), exist_ok=True)
        number = secrets.token_hex(4)
        write_text(path, number + "\n")
        return number


@contextlib.contextmanager
def _cache_below(folder: str) -> Iterator[None]:
    """W&B starts a process that keeps its own log in its cache, by default in the home folder."""
    if "WANDB_CACHE_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_CACHE_DIR"] = os.path.abspath(os.path.join(folder, FOLDER, "cache"))
    try:
        yield
    finally:
        del os.environ["WANDB_CACHE_DIR"]


def _plain(config: Any) -> Any:
    """A config as what JSON knows; classes and functions by their names."""
    if isinstance(config, DictConfig):
        config = OmegaConf.to_container(config, resolve=False)
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    return getattr(config, "__qualname__", None) or str(config)
