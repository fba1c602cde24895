"""SyncBN over CPU processes against batch norm of the whole batch."""

import itertools

import pytest
import torch
from torch import distributed as dist
from torch import nn

from dnl_d2.layers.sync_batch_norm import CPUSyncBatchNorm
from tests.processes import call_in_group

SHAPES = [(5, 4), (5, 4, 6), (5, 4, 2, 3), (5, 4, 2, 3, 2)]
OPTIONS = [{}, {"momentum": None, "eps": 0.1}, {"affine": False}, {"track_running_stats": False}]
CASES = [*itertools.product(SHAPES, OPTIONS)]
SHARES = [(2, 3), (5, 0)]  # pictures of each process


class _OfAnyRank(nn.BatchNorm2d):
    def _check_input_dim(self, input):
        pass


def results(kind, shape, options, part=slice(None), dtype=torch.float64):
    """Outputs, gradients and statistics of two steps, and what evaluation then gives."""
    generator = torch.Generator().manual_seed(0)
    norm = kind(4, **options).to(torch.float64 if dtype == torch.float64 else torch.float32)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, generator=generator)
    found = {}
    for step in range(2):
        x, weights = (torch.randn(shape, generator=generator).to(dtype)[part] for _ in range(2))
        x.requires_grad_()
        output = norm(5 * x + 7)
        assert output.dtype == dtype
        (output * weights).sum().backward()
        found |= {f"output {step}": output.detach(), f"gradient {step}": x.grad}
    parameters = {name: p.grad for name, p in norm.named_parameters()}
    found |= {"evaluation": norm.eval()(x).detach()} if norm.track_running_stats else {}
    return found, parameters, dict(norm.named_buffers())


def exchange(folder):
    rank = dist.get_rank()
    found = []
    for share, case in itertools.product(SHARES, CASES):
        part = slice(rank * share[0], rank * share[0] + share[rank])
        found.append(results(CPUSyncBatchNorm, *case, part))
    torch.save(found, folder / f"{rank}.pth")
    low = results(CPUSyncBatchNorm, SHAPES[2], {}, slice(3 * rank, 3 * rank + 3), torch.bfloat16)
    torch.save(low[2], folder / f"low-{rank}.pth")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        CPUSyncBatchNorm(4)(torch.ones(1 - rank, 4))
    assert CPUSyncBatchNorm(4)(torch.ones(0, 4, 2, 2)).shape == (0, 4, 2, 2)


def test_two_processes_equal_one(tmp_path):
    call_in_group(exchange, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    assert len(first) == len(SHARES) * len(CASES)
    for number, ((inputs, weights, state), other) in enumerate(zip(first, second, strict=True)):
        of_pictures, of_weights, statistics = results(_OfAnyRank, *CASES[number % len(CASES)])
        for name, value in of_pictures.items():
            both = torch.cat([inputs[name], other[0][name]])
            torch.testing.assert_close(both, value, rtol=1e-10, atol=1e-10)
        for name, value in of_weights.items():  # of which DistributedDataParallel makes one
            torch.testing.assert_close(weights[name] + other[1][name], value)
        for name, value in statistics.items():
            torch.testing.assert_close(state[name], value)
            assert torch.equal(state[name], other[2][name])
    _, _, statistics = results(_OfAnyRank, SHAPES[2], {}, dtype=torch.bfloat16)
    for name, value in torch.load(tmp_path / "low-0.pth").items():
        torch.testing.assert_close(value, statistics[name], rtol=1e-5, atol=1e-5)
