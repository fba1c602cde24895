"""What a YAML recipe and its LazyConfig twin have in common, whatever the task."""

import inspect

import torch
from detectron2.config import instantiate
from omegaconf import ListConfig
from torch import nn

from dnl_d2.engine import Trainer

# What both ways of building leave different without meaning: a dictionary with or without its
# defaults, or sizes that only exports and figures read.
UNSAID = {"loss_weight": {"loss_cls": 1.0, "loss_box_reg": 1.0}}
# What only a YAML config can need: it is for Detectron2's DefaultPredictor, which takes no other.
YAML_ONLY = "multi_scale_flip"


def described(value):
    """A value as it compares: settings of objects by name, without tensors and submodules."""
    if isinstance(value, dict):
        return {key: described(v) for key, v in value.items()}
    if isinstance(value, list | tuple | ListConfig):
        return [described(v) for v in value]
    if isinstance(value, torch.Tensor | nn.Module | type) or inspect.isroutine(value):
        return type(value)
    if hasattr(value, "__dict__"):
        return type(value), described(vars(value))
    return value


def settings(module):
    """Everything about a module that is not a parameter, buffer or submodule."""
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != YAML_ONLY}
    for key, defaults in UNSAID.items():
        if isinstance(own.get(key), dict):
            own[key] = defaults | own[key]
    return type(module), described(own)


def check_same_network(ours, twin):
    """Asserts that two models have the same modules with the same settings and parameters."""
    mine, other = (
        {key: (v.shape, v.dtype) for key, v in m.state_dict().items()} for m in (ours, twin)
    )
    assert list(mine) == list(other) and mine == other
    trained = [{k for k, p in m.named_parameters() if p.requires_grad} for m in (ours, twin)]
    assert trained[0] == trained[1]
    modules = dict(twin.named_modules())
    assert list(modules) == [key for key, _ in ours.named_modules()]
    for key, module in ours.named_modules():
        assert settings(module) == settings(modules[key]), key


def check_twins(ours, twin, model):
    """Asserts that two configs train alike, but for the schedule and what is done to images.

    Returns:
        The YAML config's optimizer of ``model``.
    """
    twin.optimizer.params.model = model
    optimizers = Trainer.build_optimizer(ours, model), instantiate(twin.optimizer)
    for mine, other in zip(*(o.param_groups for o in optimizers), strict=True):
        assert len(mine["params"]) == len(other["params"])
        for key in ("lr", "momentum", "weight_decay", "nesterov"):
            assert mine[key] == other[key], key
    solver, train, loaders = ours.SOLVER, twin.train, twin.dataloader
    assert train.max_iter == solver.MAX_ITER
    assert train.seed == ours.SEED
    assert train.amp == {"enabled": solver.AMP.ENABLED, "dtype": solver.AMP.DTYPE}
    assert train.accumulate == solver.ACCUMULATE
    assert train.reference_batch_size == solver.REFERENCE_BATCH_SIZE
    assert train.init_checkpoint == ours.MODEL.WEIGHTS
    assert train.eval_period == ours.TEST.EVAL_PERIOD
    assert train.checkpointer.period == solver.CHECKPOINT_PERIOD
    assert train.output_dir == ours.OUTPUT_DIR
    assert loaders.train.total_batch_size == solver.IMS_PER_BATCH
    assert loaders.train.num_workers == ours.DATALOADER.NUM_WORKERS
    assert loaders.train.get("aspect_ratio_grouping", True) == ours.DATALOADER.ASPECT_RATIO_GROUPING
    assert [loaders.train.dataset.names] == list(ours.DATASETS.TRAIN)
    assert [loaders.test.dataset.names] == list(ours.DATASETS.TEST)
    return optimizers[0]
