"""Schedules for another batch size than the config's."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg
from omegaconf import OmegaConf
from torch.optim import SGD

from dnl_d2 import add_dnl_config
from dnl_d2.engine.from_lazy import scale_lazy
from dnl_d2.engine.from_yaml import scale_yaml
from dnl_d2.errors import UsageError


def yaml_config(**solver):
    cfg = get_cfg()
    add_dnl_config(cfg)
    values = dict(
        REFERENCE_BATCH_SIZE=8, BASE_LR=0.01, MIN_LR=1e-4, BASE_LR_END=1e-5, MAX_ITER=40000,
        STEPS=(30000, 35000), WARMUP_ITERS=10, CHECKPOINT_PERIOD=4000,
    )  # fmt: skip
    for key, value in (values | solver).items():
        cfg.SOLVER[key] = value
    cfg.TEST.EVAL_PERIOD = 0
    return cfg


def lazy_config(size=2, reference=8):
    return OmegaConf.create(
        dict(
            optimizer=L(SGD)(lr=0.01, params=dict(base_lr="${..lr}")),
            dataloader=dict(train=dict(total_batch_size=size)),
            train=dict(
                max_iter=40000, checkpointer=dict(period=4000, max_to_keep=3), eval_period=0,
                reference_batch_size=reference,
            ),
        )
    )  # fmt: skip


def test_a_quarter_of_the_batch_takes_four_times_the_iterations():
    cfg = yaml_config(IMS_PER_BATCH=2)
    note = scale_yaml(cfg)
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.MIN_LR, solver.BASE_LR_END) == (0.0025, 2.5e-5, 2.5e-6)
    assert (solver.MAX_ITER, solver.STEPS) == (160000, (120000, 140000))
    assert (solver.WARMUP_ITERS, solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD) == (40, 16000, 0)
    assert solver.IMS_PER_BATCH == 2
    for part in (
        "SOLVER.IMS_PER_BATCH 2",
        "SOLVER.BASE_LR 0.01 -> 0.0025",
        "MAX_ITER 40000 -> 160",
    ):
        assert part in note
    assert "EVAL_PERIOD" not in note and "\n" not in note
    before = cfg.clone()  # also what config.yaml in the output folder says
    assert scale_yaml(cfg) == "" and cfg == before


def test_lazy_configs_scale_alike():
    cfg = lazy_config()
    note = scale_lazy(cfg)
    assert cfg.optimizer.lr == cfg.optimizer.params.base_lr == 0.0025
    assert (cfg.train.max_iter, cfg.train.checkpointer.period, cfg.train.eval_period) == (
        160000, 16000, 0,
    )  # fmt: skip
    assert "optimizer.lr 0.01 -> 0.0025" in note and "train.max_iter 40000 -> 160000" in note
    assert "eval_period" not in note
    before = OmegaConf.to_container(cfg)
    assert scale_lazy(cfg) == "" and OmegaConf.to_container(cfg) == before


def test_larger_batches_and_rounding():
    cfg = yaml_config(IMS_PER_BATCH=24, WARMUP_ITERS=1)
    scale_yaml(cfg)
    assert abs(cfg.SOLVER.BASE_LR - 0.03) < 1e-12
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (13333, 1)


@pytest.mark.parametrize("reference", [0, 16])
def test_nothing_scales_by_default_or_at_the_reference(reference):
    cfg = yaml_config(REFERENCE_BATCH_SIZE=reference, IMS_PER_BATCH=16)
    before = cfg.clone()
    assert scale_yaml(cfg) == "" and cfg == before
    assert scale_lazy(lazy_config(16, reference)) == ""


def test_mistakes_are_one_line():
    with pytest.raises(UsageError, match=r"REFERENCE_BATCH_SIZE=-8, SOLVER\.IMS_PER_BATCH=2"):
        scale_yaml(yaml_config(REFERENCE_BATCH_SIZE=-8, IMS_PER_BATCH=2))
    with pytest.raises(UsageError, match="set one of them to 0"):
        scale_yaml(yaml_config(REFERENCE_WORLD_SIZE=4))
    cfg = lazy_config()
    del cfg.optimizer.lr
    with pytest.raises(UsageError, match=r"there is no optimizer\.lr to scale"):
        scale_lazy(cfg)
