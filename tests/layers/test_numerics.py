"""Reduced precision: logits and softmax stay in fp32, whatever the blocks run in."""

import pytest
import torch

from dnl_d2.layers import pairwise_attention, pairwise_weights
from tests.layers.cases import Case, one_each, random_map, random_mask, randomize

CHANNELS = 64


def bf16_exact(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    """Float64 numbers that bf16 holds exactly."""
    return (scale * random_map(shape, seed)).bfloat16().double()


def worst(weights: torch.Tensor, right: torch.Tensor) -> float:
    return (weights.double() - right).abs().max().item()


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_bf16_queries_get_fp32_logits(masked):
    q, k = bf16_exact((2, 30, CHANNELS), 0), bf16_exact((2, 40, CHANNELS), 1)
    v = bf16_exact((2, 40, 8), 2)
    mask = torch.arange(40)[None] >= torch.tensor([[40], [30 if masked else 40]])
    options = dict(scale=CHANNELS**-0.5 / 0.05, key_padding_mask=mask if masked else None)
    right = pairwise_weights(q, k, **options)
    low = [t.bfloat16() for t in (q, k, v)]
    naive = (low[0] @ low[1].transpose(1, 2) * options["scale"]).masked_fill(
        mask[:, None] if masked else torch.tensor(False), -torch.inf
    )
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            weights = pairwise_weights(*low[:2], **options)
            out = pairwise_attention(*low, **options)
        assert weights.dtype == torch.float32 and out.dtype == torch.bfloat16
        assert worst(weights, right) < 1e-4 < 0.02 < worst(naive.softmax(-1), right)
        torch.testing.assert_close(out.double(), right @ v, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(
    "case", [Case("nl"), Case("dnl"), Case("dnl", {"preset": "paper-det"})], ids=str
)
def test_blocks_under_autocast_get_fp32_logits(case):
    """Projections only pick channels here, so that logits are the only thing left to round."""
    block = case.build(channels=CHANNELS).float()
    inter = block.inter_channels
    pick = torch.eye(CHANNELS)[:, :, None, None]
    block.query.weight.data, block.key.weight.data = pick[:inter], pick[-inter:]
    x = bf16_exact((1, CHANNELS, 6, 8), 0, scale=2.0)
    right = block.double().attention(x)["pairwise"]
    block.float()
    with torch.autocast("cpu", torch.bfloat16):
        weights = block.attention(x.float())["pairwise"]
    assert worst(weights, right) < 1e-4
    tokens = x.flatten(2).transpose(1, 2)
    if case.name == "dnl":
        tokens = tokens - tokens.mean(1, keepdim=True)
    query, key = tokens[..., :inter].bfloat16(), tokens[..., -inter:].bfloat16()
    naive = (query @ key.transpose(1, 2) * block.scale).softmax(-1).view_as(right)
    assert worst(naive, right) > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    "case",
    [
        *one_each(),
        *(Case("nl", {"mode": m}) for m in ("gaussian", "dot_product", "concatenation")),
        Case("nl", {"sub_sample": True}),
        Case("dnl", {"preset": "paper-det"}),
        Case("dnl", {"sub_sample": True, "whitening": "layer"}),
        Case("gc", {"pooling": "avg", "fusion": ("mul",)}),
    ],
    ids=str,
)
def test_large_activations_stay_finite(case, masked, dtype):
    """Activations of ten: at temperature 0.05 logits pass 65504, the largest fp16 number."""
    block = randomize(case.build(channels=CHANNELS), 0).train().float()
    inputs = {k: (10 * v).float() for k, v in case.inputs((2, CHANNELS, 6, 7)).items()}
    mask = random_mask(inputs, full_sample=True) if masked else None
    if case.name == "nl" and case.options.get("mode") in ("dot_product", "concatenation"):
        inputs = {k: v / 10 for k, v in inputs.items()}  # no softmax: outputs grow with the cube
    with torch.autocast("cpu", dtype):
        out = block(**inputs, key_padding_mask=mask)
    assert torch.isfinite(out).all()
    out.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)
    half = block.to(dtype).eval()
    out = half(**{k: v.to(dtype) for k, v in inputs.items()}, key_padding_mask=mask)
    assert out.dtype == dtype and torch.isfinite(out).all()


@pytest.mark.parametrize("case", one_each())
def test_autocast_stays_near_fp32(case):
    block = randomize(case.build(channels=CHANNELS), 0).eval().float()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter *= 0.1 if name.split(".")[-2:-1] != ["norm"] else 1.0
    inputs = {k: v.float() for k, v in case.inputs((2, CHANNELS, 6, 7)).items()}
    with torch.no_grad():
        right = block(**inputs)
        with torch.autocast("cpu", torch.bfloat16):
            out = block(**inputs)
    assert (out.float() - right).norm() < 0.03 * right.norm()


@pytest.mark.parametrize(
    "case",
    [*one_each(), *(Case("dnl", {"preset": p}) for p in ("paper-seg", "paper-det"))],
    ids=str,
)
def test_bf16_maps_stay_bf16_under_autocast(case):
    """fp32 parameters that are no convolution (gamma) do not promote the map."""
    block = case.build(channels=CHANNELS).float()
    inputs = {k: v.bfloat16() for k, v in case.inputs((2, CHANNELS, 6, 7)).items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert block(**inputs).dtype == torch.bfloat16
