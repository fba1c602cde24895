"""Norms by name, and the one that GCNet calls fixBN."""

import pytest
import torch
from torch import nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import DisentangledNonLocalBlock, FixedBatchNorm2d, get_norm


@pytest.fixture
def loaded():
    """A norm as a checkpoint leaves it, and the same norm of PyTorch."""
    torch.manual_seed(0)
    norm, plain = FixedBatchNorm2d(4), nn.BatchNorm2d(4)
    state = {k: torch.rand_like(v) + 0.5 for k, v in norm.state_dict().items() if v.dim()}
    state["num_batches_tracked"] = torch.tensor(3)
    norm.load_state_dict(state)
    plain.load_state_dict(state)
    return norm, plain


def test_it_trains_as_other_norms_evaluate(loaded):
    norm, plain = loaded
    x = torch.randn(3, 4, 5, 6)
    before = {k: v.clone() for k, v in norm.named_buffers()}
    assert torch.equal(norm.train()(x), plain.eval()(x))
    for name, buffer in norm.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_weight_and_bias_learn(loaded):
    norm, plain = loaded
    x = torch.randn(3, 4, 5, 6)
    norm.train()(x).square().sum().backward()
    plain.eval()(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(norm.get_parameter(name).grad, parameter.grad)


def test_names():
    kinds = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm, "GN": nn.GroupNorm}
    for name, kind in kinds.items() | {("fixBN", FixedBatchNorm2d)}:
        assert type(get_norm(name, 64)) is kind
    assert get_norm("", 64) is get_norm(None, 64) is None
    assert get_norm(nn.Identity, 64) is not None
    with pytest.raises(UsageError, match="32 groups, which do not divide 6 channels"):
        get_norm("GN", 6)


def test_blocks_take_it():
    """Its statistics stay in training: a batch changes nothing about the next one."""
    block = DisentangledNonLocalBlock(8, norm="fixBN")
    assert isinstance(block.project.norm, FixedBatchNorm2d)
    nn.init.normal_(block.project.norm.weight)
    x = torch.randn(2, 8, 5, 5)
    first = block.train()(x)
    block(10 * torch.randn(2, 8, 5, 5))
    assert torch.equal(block(x), first)
