"""Optimizers that step in one kernel, and checkpoints between them and others."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from dnl_d2.engine import run
from dnl_d2.engine.optimizer import clip_total_norm, fuse
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_training
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def clipped(optimizer):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    return maybe_add_gradient_clipping(cfg, optimizer)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))


def optimizer_of(network, kind=torch.optim.SGD, *, fused, wrap=lambda x: x, **options):
    optimizer = wrap(kind(network.parameters(), **(options or SGD)))
    if fused:
        fuse(optimizer, scaled=False)
    return optimizer


def steps(network, optimizer, count=3, start=0):
    for step in range(start, start + count):
        x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in network.parameters()]


def is_fused(optimizer):
    flags = {bool(group["fused"]) for group in optimizer.param_groups}
    assert len(flags) == 1
    return flags.pop()


@pytest.mark.parametrize("wrap", [lambda x: x, clipped], ids=["plain", "clipped"])
def test_a_step_is_the_same(wrap):
    networks = model(), model()
    pair = [
        optimizer_of(n, fused=f, wrap=wrap) for n, f in zip(networks, (True, False), strict=True)
    ]
    assert [is_fused(o) for o in pair] == [True, False]
    ours, theirs = (steps(*pair) for pair in zip(networks, pair, strict=True))
    assert any((a != b).any() for a, b in zip(theirs, model().parameters(), strict=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_goes_on_from_the_other_kind(before, kind):
    """AdamW is not fused on a CPU unless it is told to be."""
    options = SGD if kind is torch.optim.SGD else {"lr": 0.1}

    def optimizer(network, fused):
        if kind is torch.optim.SGD:
            return optimizer_of(network, fused=fused, **options)
        made = kind(network.parameters(), fused=fused or None, **options)
        fuse(made, scaled=False)
        return made

    whole = steps(n := model(), optimizer(n, before), 6)
    first = model()
    earlier = optimizer(first, before)
    steps(first, earlier)
    second = copy.deepcopy(first)
    later = optimizer(second, not before)
    fuse(later, scaled=False)
    was = is_fused(later)
    later.load_state_dict(copy.deepcopy(earlier.state_dict()))
    assert is_fused(later) == was
    torch.testing.assert_close(steps(second, later, start=3), whole, rtol=1e-5, atol=1e-6)


def test_what_stays_as_it_is():
    network = model()
    for wrap in (clipped, lambda o: clip_total_norm(o, 1.0) or o):
        optimizer = wrap(torch.optim.SGD(network.parameters(), lr=0.1))
        fuse(optimizer, scaled=True)  # it would clip scaled gradients
        assert not is_fused(optimizer)
    for optimizer in (
        torch.optim.SGD(network.parameters(), lr=0.1, fused=False),
        torch.optim.AdamW(network.parameters(), lr=0.1),
        torch.optim.SGD(network.parameters(), lr=0.1, differentiable=True),
        torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, dampening=0.5),
    ):
        fuse(optimizer, scaled=False)
        assert not is_fused(optimizer)
    optimizer = torch.optim.RMSprop(network.parameters())
    fuse(optimizer, scaled=False)
    assert "fused" not in optimizer.defaults


@pytest.mark.parametrize("factors", [(1.0, torch.inf, 1.0), (torch.inf, 1.0, 1.0)])
def test_a_fused_optimizer_takes_the_factor_of_a_scaler(factors, monkeypatch):
    """And leaves out the step of gradients that are not finite, as the scaler itself does."""
    empty_like = torch.empty_like  # whose memory may hold anything
    monkeypatch.setattr(torch, "empty_like", lambda *a, **o: empty_like(*a, **o).fill_(1e9))
    weights = []
    for fused in (True, False):
        network = model()
        optimizer = optimizer_of(network, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in factors:
            optimizer.zero_grad()
            scaler.scale(network(torch.ones(2, 3, 9, 9)).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 512.0
        weights.append([p.detach().clone() for p in network.parameters()])
    assert torch.isfinite(weights[0][0]).all()
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_a_parameter_may_get_its_first_gradient_late():
    """As those of a head do that no picture of the first batch is for."""
    weights = []
    for fused in (True, False):
        network = model()
        optimizer = optimizer_of(network, fused=fused)
        network[2].requires_grad_(False)
        steps(network, optimizer, 2)
        network[2].requires_grad_(True)
        weights.append(steps(network, optimizer, 2, start=2))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_runs_of_both_config_systems_are_fused(kind, tmp_path):
    step, _, _ = build_training(read_config(kind(tmp_path), train=True))
    assert is_fused(step.optimizer)


@pytest.mark.usefixtures("environment")
def test_a_run_that_was_not_fused_is_resumed(tmp_path):
    run(yaml_config(tmp_path, length=1), arguments())
    path = tmp_path / "model_final.pth"
    stored = torch.load(path, weights_only=False)
    for group in stored["trainer"]["optimizer"]["param_groups"]:
        group.update(fused=None, foreach=True)
    torch.save(stored, path)
    run(yaml_config(tmp_path, length=2), arguments(resume=True))
    stored = torch.load(path, weights_only=False)
    assert stored["iteration"] == 1
    assert all(group["fused"] for group in stored["trainer"]["optimizer"]["param_groups"])
