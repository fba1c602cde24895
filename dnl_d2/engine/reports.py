"""What every run tells of itself: on the console, in ``run.json``, through writers of events."""

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import SimpleTrainer, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from dnl_d2.engine.environment import many_sizes, share_buffers
from dnl_d2.engine.spec import RunSpec
from dnl_d2.reporting.aside import only_warning
from dnl_d2.reporting.curves import CurvesWriter
from dnl_d2.reporting.history import RunHistory
from dnl_d2.reporting.pictures import PicturesForgetter, PredictionPictures
from dnl_d2.reporting.wandb_writer import WandbWriter

_log = logging.getLogger(__name__)
_NOT_COUNTED = (
    "cityscapes_instance",  # whose masks are read for the list: minutes
    "classification",  # a config may have other images read under the same name
)


class TrainingReport(hooks.HookBase):
    """Says in a few lines what is about to be trained, and keeps ``run.json``.

    Args:
        spec: the run.
        model: without what joins processes.
        step: with optimizer and loader.
    """

    def __init__(self, spec: RunSpec, model: nn.Module, step: SimpleTrainer):
        self._spec, self._model, self._step = spec, model, weakref.proxy(step)
        self._history = RunHistory(spec.output_dir)

    def before_train(self) -> None:
        spec, start = self._spec, self.trainer.start_iter
        origin = spec.weights or "none, from random numbers"
        weights = f"of iteration {start}, resumed" if start else origin
        rate = max(g.get("initial_lr", g["lr"]) for g in self._step.optimizer.param_groups)
        images = images_in(self._step.data_loader)
        passes = f" ({spec.max_iter * spec.batch_size / images:.3g} epochs)" if images else ""
        sets = ", ".join(spec.train_sets)
        period = f"every {spec.eval_period} iterations" if spec.eval_period else "at the end"
        tested = ", ".join(map(_with_size, spec.test_sets)) if spec.evaluate else ""
        lines = {
            **_common(spec, self._model, weights),
            "training": sets + (f" ({images} images)" if images else ""),
            "evaluation": f"{tested}, {period}" if tested else "none",
            "iterations": f"{start} to {spec.max_iter} of {spec.batch_size} images{passes}",
            "optimizer": f"{type(self._step.optimizer).__name__}, learning rate {rate:g}",
        }
        if torch.device(spec.device).type == "cuda" and torch.backends.cudnn.benchmark:
            lines["cuDNN"] = f"tries its algorithms for each size of pictures ({spec.keys.cudnn})"
        _log.info(_table("training", lines))
        self._history.begin(
            kind="training",
            seed=getattr(self._step.data_loader, "seed", None),
            from_iteration=start,
            to_iteration=spec.max_iter,
        )

    def after_train(self) -> None:
        done = self.trainer.iter
        self._history.end(reached_iteration=done, finished=done >= self.trainer.max_iter)


def report_evaluation(spec: RunSpec, model: nn.Module, weights: str) -> RunHistory:
    """As :class:`TrainingReport`, for a run that only evaluates; the caller ends the entry."""
    history = RunHistory(spec.output_dir if comm.is_main_process() else "")
    if comm.is_main_process():
        tested = ", ".join(map(_with_size, spec.test_sets))
        lines = {**_common(spec, model, weights), "evaluation": tested}
        if spec.eval_precision != "float32":
            lines["precision"] = spec.eval_precision
        _log.info(_table("evaluation", lines))
        history.begin(kind="evaluation", weights=weights)
    return history


def showing_pictures(
    spec: RunSpec, model: nn.Module, evaluate: Callable[[], dict]
) -> Callable[[], dict]:
    """An evaluation of one model, after which the main process shows predictions beside the truth.

    Args:
        spec: the run.
        model: without what joins processes.
        evaluate: returns figures.
    """
    pictures = PredictionPictures(spec.test_sets, spec.eval_pictures, spec.build_test_mapper)

    def evaluate_and_show() -> dict:
        share_buffers(model)
        with many_sizes():
            results = evaluate()
            if comm.is_main_process():
                pictures.show(model)
        return results

    return evaluate_and_show


def with_own_writers(spec: RunSpec, writers: Sequence[EventWriter]) -> list[EventWriter]:
    """Writers, with the one that draws curves, and Weights & Biases where it is asked for.

    Pictures that have been written are forgotten, whoever of them writes some.
    """
    everywhere = [*writers, CurvesWriter(spec.output_dir), PicturesForgetter()]
    if not spec.wandb.project:
        return everywhere
    wandb = WandbWriter(
        spec.output_dir,
        project=spec.wandb.project,
        name=spec.wandb.name or os.path.basename(os.path.abspath(spec.output_dir)),
        config=spec.config,
        key=spec.keys.wandb,
    )
    return [wandb, *everywhere]


def images_in(loader: Any) -> int | None:
    """How many images a loader of Detectron2's draws from; None if it does not tell."""
    while hasattr(loader, "dataset"):
        loader = loader.dataset
    try:
        return len(loader)
    except TypeError:
        return None


def _common(spec: RunSpec, model: nn.Module, weights: str) -> dict[str, str]:
    count = sum(parameter.numel() for parameter in model.parameters())
    processes = comm.get_world_size()
    device = torch.device(spec.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else spec.device
    return {
        "folder": spec.output_dir,
        "device": name + (f", {processes} processes" if processes > 1 else ""),
        "model": f"{type(model).__name__}, {count / 1e6:.2f} million parameters",
        "weights": weights,
    }


def _with_size(name: str) -> str:
    """A dataset with its number of images, where that is known soon."""
    if MetadataCatalog.get(name).get("evaluator_type", None) in _NOT_COUNTED:
        return name
    count = None
    if name not in DatasetCatalog.list():  # which its loader may do
        return name
    with only_warning(f"the images of {name} are not counted"):
        count = len(DatasetCatalog.get(name))
    return name if count is None else f"{name} ({count} images)"


def _table(title: str, lines: dict[str, str]) -> str:
    return "\n".join([title, *(f"  {name:<11} {text}" for name, text in lines.items())])
