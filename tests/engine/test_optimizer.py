"""Weight decay and learning rate of every parameter and iteration against mmengine's."""

import copy
import os

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.solver import LRMultiplier
from torch import nn

from dnl_d2 import add_dnl_config
from dnl_d2.engine import Trainer, load_config, optimizer_params, read_config
from dnl_d2.engine.optimizer import clip_total_norm
from dnl_d2.errors import UsageError
from dnl_d2_parity import comparison
from dnl_d2_parity.references import mmseg
from tests.engine.runs import as_lazy, as_yaml

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "configs")
BLOCK = ["context_block.query", "context_block.key"]


@pytest.fixture(scope="module")
def twins():
    return comparison.twins("dnl", width=16)


def options_by_name(optimizer, model):
    names = {p: name for name, p in model.named_parameters()}
    keys = ("lr", "weight_decay", "momentum", "dampening", "nesterov", "maximize")
    return {
        names[p]: {key: group[key] for key in keys}
        for group in optimizer.param_groups
        for p in group["params"]
    }


def theirs(twins, **paramwise):
    from mmengine.optim import build_optim_wrapper
    from mmengine.optim.optimizer import default_constructor

    options = copy.deepcopy(mmseg.published_config("dnl").optim_wrapper)
    if paramwise:
        options.paramwise_cfg = paramwise
    with pytest.MonkeyPatch.context() as patch:  # it would look for mmcv's compiled operators
        patch.setattr(default_constructor, "mmcv_full_available", lambda: False)
        optimizer = build_optim_wrapper(twins.reference, options).optimizer
    assert type(optimizer) is torch.optim.SGD
    return options_by_name(optimizer, twins.reference)


def ours(twins, no_decay):
    cfg = twins.cfg.clone()
    cfg.SOLVER.NO_DECAY = no_decay
    optimizer = Trainer.build_optimizer(cfg, twins.ours)
    assert isinstance(optimizer, torch.optim.SGD)
    return options_by_name(optimizer, twins.ours)


def lazy(twins, no_decay):
    options = load_config(os.path.join(CONFIGS, "common", "optim.py")).optimizer
    options.params.model = twins.ours
    options.params.no_decay = no_decay
    return options_by_name(instantiate(options), twins.ours)


@pytest.mark.parametrize("build", [ours, lazy])
def test_every_parameter_decays_as_published(build, twins):
    """On all of them, biases and norms included."""
    got, expected = build(twins, []), theirs(twins)
    assert len(got) == len(expected)
    for name, options in got.items():
        assert options == expected[twins.origin[name]], name
        assert options["weight_decay"] == 5e-4


@pytest.mark.parametrize("build", [ours, lazy])
def test_queries_and_keys_without_decay(build, twins):
    free = dict(theta=dict(decay_mult=0.0), phi=dict(decay_mult=0.0))
    got, expected = build(twins, BLOCK), theirs(twins, custom_keys=free)
    for name, options in got.items():
        assert options == expected[twins.origin[name]], name
    assert sorted(n for n, o in got.items() if o["weight_decay"] == 0) == [
        f"sem_seg_head.context_block.{part}.{kind}"
        for part in ("key", "query")
        for kind in ("bias", "weight")
    ]


def test_what_the_published_file_says_has_no_effect_there(twins):
    """It calls the factor ``wd_mult``, which mmengine (and mmcv before it) does not read."""
    named = dict(theta=dict(wd_mult=0.0), phi=dict(wd_mult=0.0))
    assert theirs(twins, custom_keys=named) == theirs(twins)


def test_groups_are_few_and_keep_what_else_they_say():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Linear(2, 2))
    model[2].bias.requires_grad_(False)
    groups = optimizer_params(
        model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.2, bias_lr_factor=2.0,
        no_decay=["^1", r"2\.weight$"],
    )  # fmt: skip
    got = {tuple((k, v) for k, v in g.items() if k != "params"): g["params"] for g in groups}
    free = ("weight_decay", 0.0)
    expected = {
        (("lr", 1.0), ("weight_decay", 0.1)): [model[0].weight],
        (("lr", 2.0), ("weight_decay", 0.1)): [model[0].bias],
        (("lr", 1.0), free): [model[1].weight, model[2].weight],
        (("lr", 2.0), free): [model[1].bias],
    }
    assert got.keys() == expected.keys()
    for key, parameters in expected.items():
        assert sorted(map(id, got[key])) == sorted(map(id, parameters))


def test_clipping_and_resuming_work_with_groups(twins):
    cfg = twins.cfg.clone()
    cfg.SOLVER.NO_DECAY = BLOCK
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    optimizer = Trainer.build_optimizer(cfg, twins.ours)
    assert type(optimizer).__name__ == "SGDWithGradientClip"
    for p in twins.ours.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    again = Trainer.build_optimizer(cfg, twins.ours)
    again.load_state_dict(optimizer.state_dict())
    for p in twins.ours.parameters():
        p.grad = None
    assert options_by_name(again, twins.ours) == options_by_name(optimizer, twins.ours)


def step_of(optimizer, parameters, gradients):
    """By how much a step changes each parameter."""
    before = [p.detach().clone() for p in parameters]
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient.clone()
    optimizer.step()
    return [p.detach() - b for p, b in zip(parameters, before, strict=True)]


@pytest.mark.parametrize(("norm_type", "norm"), [(2.0, 5.0), (1.0, 7.0), (float("inf"), 4.0)])
def test_the_norm_of_all_gradients_is_clipped(norm_type, norm):
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    clip_total_norm(optimizer, 2.0, norm_type)
    for got, gradient in zip(step_of(optimizer, parameters, gradients), gradients, strict=True):
        torch.testing.assert_close(got, -gradient * 2.0 / norm)
    small = [g / 10 for g in gradients]
    for got, gradient in zip(step_of(optimizer, parameters, small), small, strict=True):
        torch.testing.assert_close(got, -gradient)


def test_the_norm_of_all_gradients_is_clipped_behind_a_grad_scaler():
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    clip_total_norm(optimizer, 1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale((parameter * torch.tensor([3.0, 4.0])).sum()).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.6, -0.8]))


def test_parameters_that_join_later_are_clipped_too():
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(parameters[:1], lr=1.0)
    clip_total_norm(optimizer, 1.0)
    optimizer.add_param_group({"params": parameters[1:]})
    changes = step_of(optimizer, parameters, [torch.tensor([3.0]), torch.tensor([4.0])])
    torch.testing.assert_close(torch.cat(changes), torch.tensor([-0.6, -0.8]))


def test_fused_optimizers_are_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, fused=True)
    with pytest.raises(UsageError, match="unset fused"):
        clip_total_norm(optimizer, 1.0)


@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_clipping_by_yaml(twins, norm_type):
    cfg = twins.cfg.clone()
    cfg.SOLVER.NO_DECAY = ["query"]
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = norm_type
    cfg.SOLVER.WEIGHT_DECAY = cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    model = nn.ModuleDict({"query": nn.Linear(3, 2), "value": nn.Linear(3, 1)})
    parameters = list(model.parameters())
    for p in parameters:
        nn.init.zeros_(p)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert cfg.SOLVER.CLIP_GRADIENTS.ENABLED and type(optimizer) is torch.optim.SGD
    changes = step_of(optimizer, parameters, [torch.ones_like(p) for p in parameters])
    total = torch.linalg.vector_norm(torch.cat([c.flatten() for c in changes]), norm_type)
    assert total.item() == pytest.approx(0.5 * cfg.SOLVER.BASE_LR, rel=1e-3)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["context_block.theta"], r"'context_block\.theta' is in the name of no parameter"),
        (["query", "(key"], r"'\(key' is no regular expression"),
        ("query", "'query' is not a list"),
    ],
)
def test_mistaken_patterns_are_one_line(patterns, message):
    model = nn.ModuleDict({"query": nn.Linear(1, 1), "frozen": nn.Linear(1, 1)})
    model["frozen"].requires_grad_(False)
    with pytest.raises(UsageError, match=message) as error:
        optimizer_params(model, no_decay=patterns)
    assert "optimizer.params.no_decay" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UsageError, match="'frozen' is in the name of no parameter"):
        optimizer_params(model, no_decay=["frozen"])


def rates(scheduler_of, steps):
    """Learning rates of the iterations 0 to steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = scheduler_of(optimizer)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def yaml_schedule(iterations):
    cfg = get_cfg()
    add_dnl_config(cfg)
    cfg.merge_from_file(os.path.join(CONFIGS, "common", "segmentation_r50-d8.yaml"))
    cfg.SOLVER.MAX_ITER = iterations
    return lambda optimizer: Trainer.build_lr_scheduler(cfg, optimizer)


def lazy_schedule(iterations):
    multiplier = instantiate(load_config(os.path.join(CONFIGS, "common", "optim.py")).lr_multiplier)
    return lambda optimizer: LRMultiplier(optimizer, multiplier, max_iter=iterations)


SCHEDULES = {
    "poly": "camvid/dnl_r18w32-d8_4k_camvid-240x320",
    "steps": "coco/mask_rcnn_r50_fpn_syncbn_2x",
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("length", "images"), [(100, None), (130000, None), (None, 32), (3000, 8)])
def test_twins_agree_under_overrides(name, length, images):
    stem = os.path.join(CONFIGS, SCHEDULES[name])
    changes = {"length": length, "batch": images, "reference": images and 16}
    changes = {key: value for key, value in changes.items() if value is not None}
    specs = [
        read_config(load_config(f"{stem}.yaml", as_yaml({}, **changes)), train=True),
        read_config(load_config(f"{stem}.py", as_lazy({}, **changes)), train=True),
    ]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    yaml, lazy = (spec.build_schedule(optimizer) for spec in specs)
    assert specs[0].max_iter == specs[1].max_iter
    for where in np.linspace(0, 1, 2001, endpoint=False):
        assert lazy(where) == pytest.approx(yaml._multiplier(where), rel=1e-9)
    assert [line.split(" ", 1)[1] for line in specs[0].warnings] == [
        line.split(" ", 1)[1].replace("train.max_iter", "SOLVER.MAX_ITER")
        for line in specs[1].warnings
    ]


@pytest.mark.parametrize(
    ("name", "length", "warnings"),
    [
        ("poly", 101, []),
        ("poly", 100, ["SOLVER.WARMUP_ITERS 100: the warm-up takes all of SOLVER.MAX_ITER 100 "]),
        ("steps", 180000, []),
        ("steps", 160000, ["SOLVER.STEPS 160000: not before the end, SOLVER.MAX_ITER 160000"]),
        ("steps", 400, ["SOLVER.WARMUP_ITERS 500: ", "SOLVER.STEPS 120000, 160000: not before"]),
    ],
)
def test_what_lies_behind_the_end_is_named(name, length, warnings):
    stem = os.path.join(CONFIGS, SCHEDULES[name])
    found = read_config(
        load_config(f"{stem}.yaml", as_yaml({}, length=length)), train=True
    ).warnings
    assert len(found) == len(warnings)
    for line, start in zip(found, warnings, strict=True):
        assert line.startswith(start)


def mmengine_schedule(end):
    from mmengine.optim import PolyLR

    return lambda o: PolyLR(o, eta_min=1e-4, power=0.9, begin=0, end=end, by_epoch=False)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("schedule", [yaml_schedule, lazy_schedule])
@pytest.mark.parametrize("iterations", [700, 40000])
def test_learning_rate_of_every_iteration(schedule, iterations):
    got = torch.tensor(rates(schedule(iterations), iterations), dtype=torch.float64)
    k = torch.arange(iterations + 1, dtype=torch.float64)
    # As in mmcv 1.x, with which the published models were trained.
    published = (0.01 - 1e-4) * (1 - k / iterations) ** 0.9 + 1e-4
    torch.testing.assert_close(got, published, rtol=0, atol=1e-15)
    assert got[0] == 0.01 and got[-1] == pytest.approx(1e-4, abs=1e-15)
    # mmengine multiplies step by step, and is at the minimum one iteration before its end.
    same = torch.tensor(rates(mmengine_schedule(iterations + 1), iterations), dtype=torch.float64)
    torch.testing.assert_close(got, same, rtol=1e-11, atol=0)
    # A config of mmsegmentation 1.x with end = max_iters so decays in one iteration less.
    theirs = torch.tensor(rates(mmengine_schedule(iterations), iterations - 1), dtype=torch.float64)
    assert 0 < (got[:-1] - theirs).max() < 0.01 * iterations**-0.9
