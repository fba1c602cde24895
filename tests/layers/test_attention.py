"""``attention``: the maps of a figure are the weights that the forward pass uses."""

import pytest
import torch

from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block, pyramid_pool
from dnl_d2.layers.pyramid import spread_over_positions
from tests.layers.cases import (
    CHANNELS,
    FEW_SHAPES,
    Case,
    key_map,
    one_each,
    random_map,
    random_mask,
    registered,
)


def is_softmax(case: Case) -> bool:
    return case.options.get("mode") not in ("dot_product", "concatenation")


@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
@pytest.mark.parametrize("case", registered())
def test_maps_are_the_weights_of_the_oracle(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    for mask in (None, random_mask(inputs, full_sample=True)):
        expected = case.oracle(block, inputs, mask)
        maps = block.attention(**inputs, key_padding_mask=mask)
        present = {k for k in ("pairwise", "unary") if getattr(expected, k) is not None}
        assert set(maps) == present
        for name, weights in maps.items():
            if not case.options.get("sub_sample"):
                assert weights.shape[-(len(shape) - 2) :] == key_map(inputs).shape[2:]
            right = torch.from_numpy(getattr(expected, name))
            assert weights.dtype == torch.float64
            torch.testing.assert_close(weights.reshape(right.shape), right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", registered())
def test_maps_sum_to_one_and_leave_padding_out(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    for weights in block.attention(**inputs).values():
        if is_softmax(case):
            assert (weights >= 0).all()
            ones = torch.ones(weights.shape[:-2]).double()
            torch.testing.assert_close(weights.sum((-2, -1)), ones)
    mask = random_mask(inputs, full_sample=True)
    for name, weights in block.attention(**inputs, key_padding_mask=mask).items():
        assert (weights[-1] == 0).all()
        if is_softmax(case):
            ones = torch.ones(weights[0].shape[:-2]).double()
            torch.testing.assert_close(weights[0].sum((-2, -1)), ones)
        if not case.options.get("sub_sample"):
            padded = mask if name == "unary" else mask[:, None].expand_as(weights)
            assert (weights[padded] == 0).all()


def apply_pairwise(weights, values):
    """``(N, Q, *S)`` weights on an ``(N, C, *S)`` map: ``(N, C, Q)``."""
    return torch.einsum("nql,ncl->ncq", weights.flatten(2), values.flatten(2))


def apply_unary(weights, values):
    """``(N, *S)`` weights on an ``(N, C, *S)`` map: ``(N, C)``."""
    return torch.einsum("nl,ncl->nc", weights.flatten(1), values.flatten(2))


def compose_nl(block, maps, x):
    context = apply_pairwise(maps["pairwise"], block.value(x)).unflatten(2, (5, 4))
    return x + block.project(context)


def compose_snl(block, maps, x):
    return x + block.value(apply_unary(maps["unary"], x)[..., None, None])


def compose_gc(block, maps, x):
    return x + block.channel_add(apply_unary(maps["unary"], x)[..., None, None])


def compose_dnl(block, maps, x):
    value = block.value(x)
    pairwise = apply_pairwise(maps["pairwise"], value)
    if block.gamma is not None:
        pairwise = block.gamma * pairwise
    total = (pairwise + apply_unary(maps["unary"], value)[..., None]).unflatten(2, (5, 4))
    return x + (total if block.project is None else block.project(total))


def compose_asymmetric(block, maps, x, low=None):
    value = block.attend.value(x if low is None else low)
    context = apply_pairwise(maps["pairwise"], value).unflatten(2, (5, 4))
    return block.bottleneck(torch.cat([block.attend.project(context), x], 1))


COMPOSE = {
    "nl": compose_nl,
    "snl": compose_snl,
    "gc": compose_gc,
    "dnl": compose_dnl,
    "apnb": compose_asymmetric,
    "afnb": compose_asymmetric,
}


def test_composition_is_written_for_every_block():
    assert set(COMPOSE) == set(CONTEXT_BLOCKS)


@pytest.mark.parametrize(
    "case",
    [
        *one_each(),
        Case("nl", {"mode": "dot_product"}),
        Case("nl", {"mode": "concatenation"}),
        Case("nl", {"mode": "gaussian", "norm": "BN"}),
        Case("gc", {"pooling": "avg"}),
        Case("dnl", {"preset": "paper-det"}),
        Case("dnl", {"preset": "paper-seg", "project": True}),
        Case("apnb"),
    ],
    ids=str,
)
def test_maps_applied_to_the_values_give_the_output(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    for mask in (None, random_mask(inputs, full_sample=False)):
        maps = block.attention(**inputs, key_padding_mask=mask)
        with torch.no_grad():
            composed = COMPOSE[case.name](block, maps, **inputs)
            out = block(**inputs, key_padding_mask=mask)
        torch.testing.assert_close(out, composed, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
@pytest.mark.parametrize("case", registered())
def test_queries_pick_rows(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    last = tuple(s - 1 for s in shape[2:])
    middle = tuple(s // 2 for s in shape[2:])
    queries = [last, middle, (0,) * len(last), last]
    full, picked = block.attention(**inputs), block.attention(**inputs, queries=queries)
    assert set(full) == set(picked)
    if "unary" in full:
        torch.testing.assert_close(picked["unary"], full["unary"], rtol=0, atol=0)
    if "pairwise" in full:
        rows = full["pairwise"].unflatten(1, shape[2:])
        for i, query in enumerate(queries):
            row = rows[(slice(None), *query)]
            torch.testing.assert_close(picked["pairwise"][:, i], row, rtol=1e-12, atol=1e-15)
        assert block.attention(**inputs, queries=[])["pairwise"].shape[1] == 0


@pytest.mark.parametrize("query", [(5, 0), (0, 4), (-1, 0), (2,), (1, 1, 1), ()])
@pytest.mark.parametrize("case", one_each())
def test_queries_outside_the_map_are_refused(case, query):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    with pytest.raises(UsageError, match="not a position of a map of size") as error:
        block.attention(**inputs, queries=[(0, 0), query])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", one_each())
def test_maps_carry_no_graph(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    inputs["x"].requires_grad_()
    assert all(not m.requires_grad for m in block.attention(**inputs).values())


@pytest.mark.parametrize("scales", [(1,), (3,), (1, 3, 6, 8), (2, 7)])
@pytest.mark.parametrize("spatial", [(7,), (1,), (5, 4), (9, 11), (1, 6), (2, 3, 3)])
def test_spread_weights_do_what_weights_on_cells_do(spatial, scales):
    """weights @ pooled == spread(weights) @ positions, exactly, and spreading keeps sums."""
    x = random_map((2, 3, *spatial), 0)
    for mask in (None, random_mask({"x": x}, full_sample=True)):
        pooled, empty = pyramid_pool(x, scales, mask)
        weights = random_map((2, 4, pooled.shape[1]), 1).abs()
        if empty is not None:
            weights = weights.masked_fill(empty[:, None], 0.0)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
        spread = spread_over_positions(weights, spatial, scales, mask)
        assert spread.shape == (2, 4, *spatial)
        on_positions = torch.einsum("nql,ncl->nqc", spread.flatten(2), x.flatten(2))
        torch.testing.assert_close(on_positions, weights @ pooled, rtol=1e-11, atol=1e-13)
        sums = spread.flatten(2).sum(-1)
        torch.testing.assert_close(sums, weights.sum(-1), rtol=1e-11, atol=1e-13)
        assert (spread >= 0).all()


@pytest.mark.parametrize("name", ["apnb", "afnb"])
def test_attention_moves_no_statistics_and_keeps_modes(name):
    block = build_context_block(name, 8).train()
    block.attend.key.norm.eval()
    state = {k: v.clone() for k, v in block.state_dict().items()}
    modes = [m.training for m in block.modules()]
    block.attention(torch.randn(2, 8, 9, 9), [(0, 0)])
    assert all(torch.equal(v, state[k]) for k, v in block.state_dict().items())
    assert [m.training for m in block.modules()] == modes and not all(modes)
