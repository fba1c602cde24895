"""Training, resuming and evaluating a config of either kind."""

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_writers
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils import comm
from omegaconf import DictConfig

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.checkpoint.detectron2_zoo import resolve_weights
from dnl_d2.config.loading import load_config_file
from dnl_d2.data.datasets.configured import register_configured
from dnl_d2.data.datasets.registration import listed_once
from dnl_d2.engine.environment import set_up
from dnl_d2.engine.failures import explaining_failures
from dnl_d2.engine.folder_lock import is_begun_in, only_run_in
from dnl_d2.engine.from_lazy import from_lazy
from dnl_d2.engine.from_yaml import from_yaml
from dnl_d2.engine.hooks import build_hooks
from dnl_d2.engine.interruption import Stopped, StopRequest, listening
from dnl_d2.engine.multi_scale import check_multi_scale, detector_at_scales
from dnl_d2.engine.output_folder import clear, require_room
from dnl_d2.engine.reports import report_evaluation
from dnl_d2.engine.spec import RunSpec
from dnl_d2.engine.trainer import Trainer
from dnl_d2.engine.training import build_model, build_training
from dnl_d2.errors import UsageError
from dnl_d2.modeling.optimize import optimize_for_inference
from dnl_d2.validation.splits import check_splits

_log = logging.getLogger(__name__)


def load_config(path: str, overrides: Sequence[str] = ()) -> CfgNode | DictConfig:
    """Loads a config file of either kind, and registers the datasets that it declares.

    Args:
        path, overrides: see :func:`dnl_d2.config.loading.load_config_file`.

    Raises:
        UsageError: as there, or an entry of DATASETS.FOLDERS or DATASETS.COCO is wrong.
    """
    cfg = load_config_file(path, overrides)
    if isinstance(cfg, CfgNode):
        try:
            register_configured(cfg.DATASETS)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
    return cfg


def read_config(cfg: CfgNode | DictConfig, *, train: bool) -> RunSpec:
    """The run that a config of either kind describes.

    Args:
        cfg: the config.
        train: whether it is to train; otherwise it only evaluates.

    Raises:
        UsageError: a value that cannot be meant.
    """
    if isinstance(cfg, CfgNode):
        return from_yaml(cfg, Trainer, train=train)
    return from_lazy(cfg, train=train)


def run(cfg: CfgNode | DictConfig, args: argparse.Namespace) -> dict:
    """Trains, or evaluates with ``args.eval_only``; ``args.resume`` goes on where a run ended.

    A signal (SIGINT, SIGTERM, SIGHUP, SIGUSR1) or ``args.latest_stop``, a :func:`time.time`, ends
    training early: see :mod:`dnl_d2.engine.interruption`.

    A folder that holds the weights of a run is trained in again only with ``args.resume``, or with
    ``args.overwrite``, which deletes them. What torchrun starts once more goes on with what it has
    begun.

    Returns:
        The figures of the last evaluation.

    Raises:
        UsageError: a value that cannot be meant, weights that do not exist, an output folder that
            cannot be written, what :func:`dnl_d2.validation.splits.check_splits` finds; later
            whatever a file or a value turns out to be.
        Stopped: training was asked to end, and has saved a checkpoint.
    """
    spec = read_config(cfg, train=not args.eval_only)
    if args.eval_only:
        check_multi_scale(spec, spec.model_class)
    elif is_begun_in(spec.output_dir):
        args.resume, args.overwrite = True, False
    if not args.resume:
        resolve_weights(spec.weights, spec.keys.weights)
    if args.eval_only:
        return _carry_out(spec, args)
    require_room(
        spec.output_dir,
        key=spec.keys.output_dir,
        weights=spec.weights,
        resume=args.resume,
        overwrite=getattr(args, "overwrite", False),
    )
    with only_run_in(spec.output_dir, key=spec.keys.output_dir):
        return _carry_out(spec, args)


def _carry_out(spec: RunSpec, args: argparse.Namespace) -> dict:
    set_up(spec.config, args, output_dir=spec.output_dir)
    for note in spec.notes:
        _log.info(note)
    for warning in () if args.eval_only else spec.warnings:
        _log.warning(warning)
    with listed_once():
        if spec.max_checked_files is not None:
            check_splits(
                {spec.keys.train_sets: spec.train_sets},
                {spec.keys.test_sets: spec.test_sets},
                eval_only=args.eval_only,
                task=spec.task,
                max_files=spec.max_checked_files,
            )
        if args.eval_only:
            return _evaluate(spec, resume=args.resume)
        latest = getattr(args, "latest_stop", None)
        return _train(
            spec,
            resume=args.resume,
            overwrite=getattr(args, "overwrite", False),
            latest_stop=latest,
        )


def _evaluate(spec: RunSpec, *, resume: bool) -> dict:
    if spec.evaluate is None:
        raise UsageError("--eval-only: the config has no dataloader.test")
    model = build_model(spec)
    check_multi_scale(spec, type(model))
    checkpointer = Checkpointer(
        model, spec.output_dir, key=spec.keys.weights, channel_order=spec.channel_order
    )
    checkpointer.load_whole(spec.weights, resume=resume)
    resumed = resume and checkpointer.has_checkpoint()
    weights = checkpointer.get_checkpoint_file() if resumed else spec.weights
    if spec.eval_precision != "float32":
        model = optimize_for_inference(model, precision=spec.eval_precision)
    history = report_evaluation(spec, model, weights)
    results = spec.evaluate(model)
    if spec.multi_scale and spec.multi_scale.detectors and isinstance(model, GeneralizedRCNN):
        _log.info(f"once more, at several scales ({spec.multi_scale.key})")
        augmented = detector_at_scales(model, spec.multi_scale.detectors)
        figures = spec.evaluate(augmented, f"{spec.output_dir}/inference_TTA")
        results.update({f"{key}_TTA": value for key, value in figures.items()})
    history.end()
    spec.verify(results)
    return results


def _train(spec: RunSpec, *, resume: bool, overwrite: bool, latest_stop: float | None) -> dict:
    loop, schedule, checkpointer = build_training(spec)
    if not resume:
        checkpointer.resume_or_load(spec.weights, resume=False)
        if overwrite and comm.is_main_process():  # before the files of this run are opened
            clear(spec.output_dir)
    model, results = loop.model, dict[str, Any]()

    def evaluate(test: Callable[..., dict]) -> dict:
        results.clear()
        results.update(test(model))
        return results

    test = partial(evaluate, spec.evaluate) if spec.evaluate else None
    writers = partial(default_writers, spec.output_dir, spec.max_iter)
    stop = StopRequest()
    loop.register_hooks(build_hooks(spec, model, checkpointer, loop, schedule, test, writers, stop))
    if resume:  # the hooks too
        checkpointer.resume_or_load(spec.weights, resume=True)
    # The checkpoint holds the iteration that it ended.
    start = loop.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    try:
        with explaining_failures(spec.keys.find_unused_parameters), listening(stop, latest_stop):
            loop.train(start, spec.max_iter)
    except Stopped as stopped:  # behind what hooks have to say at the end
        _log.warning(stopped.message)
        raise
    if results:
        spec.verify(results)
    return results
