"""Pyramid sampling, and the asymmetric blocks against their equation with nothing folded."""

import copy

import pytest
import torch
import torch.nn.functional as F

from dnl_d2.layers import build_context_block, pyramid_pool
from tests.layers.cases import random_map, random_mask, randomize

POOLS = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
SIZES = [
    *[(1,), (2,), (7,), (24,), (97,)],
    *[(1, 1), (1, 9), (2, 5), (8, 8), (9, 11), (13, 48), (64, 33), (97, 97)],
    *[(1, 2, 3), (3, 1, 9), (5, 8, 7)],
]
SCALES = [(1,), (8,), (1, 3, 6, 8), (5, 2), (3, 3)]


def adaptive(x, scales):
    """The pyramid by PyTorch's own pools: ``(N, P, C)``."""
    rank = x.dim() - 2
    cells = [POOLS[rank](x.contiguous(), (s,) * rank).flatten(2) for s in scales]
    return torch.cat(cells, -1).transpose(1, 2)


def layouts(x):
    """The same map contiguous, channels-last, and as a part of a larger one."""
    larger = F.pad(x, (1, 2))
    return x, x.movedim(1, -1).contiguous().movedim(-1, 1), larger[..., 1:-2]


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pools_as_adaptive_average_pooling_does(size, scales):
    x = random_map((2, 3, *size), 0)
    weights = None
    for layout in layouts(x):
        ours, theirs = (layout.clone().requires_grad_() for _ in range(2))
        pooled, empty = pyramid_pool(ours, scales)
        right = adaptive(theirs, scales)
        assert empty is None
        torch.testing.assert_close(pooled, right, rtol=1e-12, atol=1e-13)
        weights = random_map(tuple(right.shape), 1) if weights is None else weights
        gradients = [
            torch.autograd.grad((out * weights).sum(), leaf)[0]
            for out, leaf in ((pooled, ours), (right, theirs))
        ]
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)
        single, _ = pyramid_pool(layout.float(), scales)
        torch.testing.assert_close(single.double(), right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_is_rounded_once(dtype, autocast):
    x = (random_map((1, 2, 61, 67), 0) + 4).to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        pooled, _ = pyramid_pool(x, (1, 3, 6, 8))
    assert pooled.dtype == dtype
    right = adaptive(x.double(), (1, 3, 6, 8))
    bound = torch.finfo(dtype).eps / 2 * (1 + 1e-3)
    torch.testing.assert_close(pooled.double(), right, rtol=bound, atol=0)


def unfolded(block, x, low, mask):
    """norm(W [W_o sum_s a_is v_s + b_o, x]): values, W_o and W at every position."""
    attend = block.attend
    key, value = attend.key(low), attend.value(low)
    query = key if attend.query is None else attend.query(x)
    keep = torch.ones_like(low[:, :1]) if mask is None else (~mask)[:, None].to(low)
    share = adaptive(keep, attend.pool_scales)
    divisor = torch.where(share > 0, share, 1.0)
    key, value = (adaptive(t * keep, attend.pool_scales) / divisor for t in (key, value))
    logits = torch.einsum("ncl,npc->nlp", query.flatten(2), key) / key.shape[-1] ** 0.5
    raised = logits.exp() * (share > 0).transpose(1, 2)
    weights = raised / raised.sum(-1, keepdim=True).clamp(min=1e-300)
    context = torch.einsum("nlp,npc->ncl", weights, value).unflatten(2, x.shape[2:])
    return block.bottleneck(torch.cat([attend.project(context), x], 1))


def results(run, block, inputs, training):
    """Output, gradients of all parameters and inputs, and the state after the step."""
    block = copy.deepcopy(block).train(training)
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    out = run(block, leaves)
    probe = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).view_as(out)
    out.backward(probe)
    gradients = {n: p.grad for n, p in [*block.named_parameters(), *leaves.items()]}
    assert all(g is not None for g in gradients.values())
    return {"out": out.detach(), **gradients}, dict(block.state_dict())


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("norm", "training"), [("BN", True), ("BN", False), (None, True)], ids=["train", "eval", "none"]
)
@pytest.mark.parametrize("size", [(7,), (9, 11), (2, 5, 4)], ids=str)
@pytest.mark.parametrize("name", ["apnb", "afnb"])
def test_equals_the_equation_with_nothing_folded(name, size, norm, training, masked):
    """Also where a sample is all padding: its weights sum to 0, so biases must not ride on them."""
    options = {"low_channels": 5} if name == "afnb" else {}
    block = build_context_block({"name": name, "norm": norm, **options}, 6).double()
    randomize(block, 0)
    inputs = {"x": random_map((3, 6, *size), 0)}
    if name == "afnb":
        inputs["low"] = random_map((3, 5, *(2 * s - 1 for s in size)), 1)
    mask = random_mask(inputs, full_sample=True) if masked else None
    ours, state = results(lambda b, maps: b(**maps, key_padding_mask=mask), block, inputs, training)
    right, right_state = results(
        lambda b, maps: unfolded(b, maps["x"], maps.get("low", maps["x"]), mask),
        block, inputs, training,
    )  # fmt: skip
    torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(state, right_state, rtol=1e-9, atol=1e-12)
    moved = [k for k in state if "num_batches" in k]
    assert all(state[k] == block.state_dict()[k] + training for k in moved)


@pytest.mark.parametrize("name", ["apnb", "afnb"])
def test_single_precision_equals_the_equation(name):
    block = randomize(build_context_block(name, 64), 0).eval()
    x = random_map((1, 64, 13, 20), 0).float()
    for layout in layouts(x):
        right = unfolded(copy.deepcopy(block).double(), layout.double(), layout.double(), None)
        assert (block(layout).double() - right).norm() < 1e-5 * right.norm()


def test_keeps_the_memory_format():
    block = build_context_block("apnb", 8)
    x = torch.randn(2, 8, 9, 10)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert block(x.to(memory_format=layout)).is_contiguous(memory_format=layout)
