"""Training and evaluation of LazyConfig files on Detectron2's trainers."""

import argparse
import logging

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.engine import default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dnl_d2.checkpoint.training import TrainingCheckpointer
from dnl_d2.config.batch_size import SameBatchSize, scale_lazy
from dnl_d2.config.rules import check_lazy
from dnl_d2.engine.failures import training
from dnl_d2.engine.hooks import best_checkpoint_hook
from dnl_d2.engine.loading import check_weights_file, load_for_evaluation, load_weights
from dnl_d2.engine.optimizer import clip_total_norm
from dnl_d2.engine.prepare import (
    announce_single_scale,
    autocast_dtype,
    data_parallel,
    plain_batch_norm_if_alone,
    set_up,
    usable_device,
)
from dnl_d2.engine.step import build_step, check_parts
from dnl_d2.errors import UsageError, building
from dnl_d2.modeling import ContextSegmentor, SameSizeBatches
from dnl_d2.modeling.backbone.padding import padding_shows
from dnl_d2.validation.splits import check_splits
from dnl_d2.validation.task import task_of_lazy

_MULTI_SCALE = "dataloader.test.mapper.multi_scale_flip.enabled"


def run(cfg: DictConfig, args: argparse.Namespace) -> dict:
    """LazyConfig twin of :func:`dnl_d2.engine.yaml_trainer.run`."""
    check_lazy(cfg)
    cfg.train.device = usable_device(cfg.train.device)
    note = "" if args.eval_only else scale_lazy(cfg)
    if not args.resume:
        check_weights_file(cfg.train.init_checkpoint, "train.init_checkpoint")
    set_up(cfg, args, output_dir=cfg.train.output_dir)
    if note:
        logging.getLogger(__name__).info(note)
    _check(cfg, args.eval_only)
    with building("the model"):
        model = instantiate(cfg.model).to(cfg.train.device)
    model = plain_batch_norm_if_alone(model, cfg.train.device)
    _mask_padding_that_shows(model)
    if args.eval_only:
        if OmegaConf.select(cfg, _MULTI_SCALE) and not isinstance(model, ContextSegmentor):
            raise UsageError(
                f"{_MULTI_SCALE}: {type(model).__name__} does not average over scales; make it a "
                "ContextSegmentor"
            )
        load_for_evaluation(
            model,
            cfg.train.init_checkpoint,
            output_dir=cfg.train.output_dir,
            resume=args.resume,
            key="train.init_checkpoint",
            channel_order=_channel_order(cfg),
        )
        return evaluate(cfg, model)
    if OmegaConf.select(cfg, _MULTI_SCALE):
        announce_single_scale()
        OmegaConf.update(cfg, _MULTI_SCALE, False)
    return _train(cfg, model, resume=args.resume)


def evaluate(cfg: DictConfig, model: nn.Module) -> dict:
    """Runs the config's evaluator over its test loader; prints and returns the figures."""
    with building("test loader and evaluator"):
        loader, evaluator = map(instantiate, (cfg.dataloader.test, cfg.dataloader.evaluator))
    results = inference_on_dataset(SameSizeBatches(model), loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _train(cfg: DictConfig, model: nn.Module, *, resume: bool) -> dict:
    logging.getLogger(__name__).info(f"Model:\n{model}")
    device, amp, parts = cfg.train.device, cfg.train.amp, cfg.train.accumulate
    dtype = autocast_dtype(amp.enabled, amp.dtype, device, "train.amp.dtype")
    check_parts(parts, cfg.dataloader.train.total_batch_size, "train.accumulate")
    cfg.optimizer.params.model = model
    with building("optimizer and loaders"):
        optimizer = instantiate(cfg.optimizer)
        loader = instantiate(cfg.dataloader.train)
        multiplier = instantiate(cfg.lr_multiplier)
    if cfg.train.clip_norm:
        clip_total_norm(optimizer, cfg.train.clip_norm)
    parallel = data_parallel(model, device, **cfg.train.ddp)
    trainer = build_step(parallel, loader, optimizer, device=device, dtype=dtype, parts=parts)
    batch_size = SameBatchSize(
        cfg.dataloader.train.total_batch_size, scaled=bool(cfg.train.reference_batch_size)
    )
    checkpointer = TrainingCheckpointer(
        model, cfg.train.output_dir, trainer=trainer, batch_size=batch_size
    )
    results: dict = {}

    def test() -> dict:
        results.clear()
        results.update(evaluate(cfg, parallel))
        return results

    main = comm.is_main_process()
    kinds = [MetadataCatalog.get(n).get("evaluator_type", None) for n in _names(cfg, "test")]
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=multiplier),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, test) if "test" in cfg.dataloader else None,
            best_checkpoint_hook(kinds, cfg.train.eval_period, checkpointer),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        ]
    )
    load_weights(
        checkpointer,
        cfg.train.init_checkpoint,
        resume=resume,
        key="train.init_checkpoint",
        channel_order=_channel_order(cfg),
    )
    start = trainer.iter + 1 if resume and checkpointer.has_checkpoint() else 0
    with training():
        trainer.train(start, cfg.train.max_iter)
    return results


def _names(cfg: DictConfig, split: str) -> list[str]:
    names = OmegaConf.select(cfg, f"dataloader.{split}.dataset.names", default=[])
    return [names] if isinstance(names, str) else list(names)


def _channel_order(cfg: DictConfig) -> str | None:
    """``RGB`` or ``BGR``, as the mappers read images; None if the config does not say."""
    for split in ("test", "train"):
        order = OmegaConf.select(cfg, f"dataloader.{split}.mapper.image_format")
        if order in ("RGB", "BGR"):
            return order
    return None


def _mask_padding_that_shows(model: nn.Module) -> None:
    """As :mod:`dnl_d2.modeling.backbone.entries` does, which knows the mean before."""
    mean = getattr(model, "pixel_mean", None)
    if mean is None or padding_shows(mean.flatten().tolist()):
        return
    for module in model.modules():
        if getattr(module, "masks_padding", False):
            module.mask_padding = False
            logging.getLogger(__name__).warning(
                "model.pixel_mean has whole numbers only, so that pixels of that colour look like "
                "padding: padding takes part in the context blocks. Add 0.5 to one to keep it out"
            )


def _check(cfg: DictConfig, eval_only: bool) -> None:
    task = task_of_lazy(cfg)
    if task.num_classes is None and task.instances is None:
        return
    check_splits(
        {"dataloader.train.dataset.names": _names(cfg, "train")},
        {"dataloader.test.dataset.names": _names(cfg, "test")},
        eval_only=eval_only,
        task=task,
        max_files=cfg.train.check_labels,
    )
    label = OmegaConf.select(cfg, "dataloader.train.mapper.dataset_ignore_label")
    for name in _names(cfg, "train"):
        stated = MetadataCatalog.get(name).get("ignore_label", None)
        if not eval_only and None not in (label, stated) and label != stated:
            raise UsageError(
                f"dataloader.train.mapper.dataset_ignore_label={label}, but {name} ignores {stated}"
            )
