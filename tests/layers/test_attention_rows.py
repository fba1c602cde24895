"""``attention_rows``: the terms of a softmax, one query after another."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dnl_d2.errors import UsageError
from dnl_d2.layers import (
    ContextBlock,
    DisentangledNonLocalBlock,
    NonLocalBlock,
    build_context_block,
)
from tests.layers.cases import CHANNELS, FEW_SHAPES, Case, random_map, random_mask, registered
from tests.reference.common import softmax

SPLIT = [
    Case("nl"),
    Case("nl", {"use_scale": False}),
    Case("nl", {"mode": "gaussian"}),
    Case("dnl"),
    Case("dnl", {"preset": "paper-det"}),
    Case("dnl", {"whitening": "layer"}),
    Case("dnl", {"whitening": "none", "unary": False}),
]


def positions(shape):
    return list(np.ndindex(*shape[2:]))


def vectors(block, name, sample):
    """Queries or keys of every position of a ``(C, *S)`` map, in NumPy."""
    flat = sample.flatten(1).T.numpy()
    if not hasattr(block, name):
        return flat  # mode gaussian
    conv = getattr(block, name)
    return flat @ conv.weight.detach().numpy()[:, :, 0, 0].T + conv.bias.detach().numpy()


def split_oracle(block, case, sample, keep):
    """arXiv 2006.06668 word by word: both centred, sums over j in a loop; keep is a list."""
    query, key = vectors(block, "query", sample), vectors(block, "key", sample)
    kept = np.array(keep)
    mean_q, mean_k = query[kept].mean(0), key[kept].mean(0)
    if case.options.get("whitening") == "layer":
        mean_q, mean_k = mean_q.mean(), mean_k.mean()
    mean_q, mean_k = np.broadcast_to(mean_q, query[0].shape), np.broadcast_to(mean_k, key[0].shape)
    rows = {
        "pairwise": [softmax([block.scale * (q @ k) for k in key], keep) for q in query],
        "whitened": [
            softmax([block.scale * ((q - mean_q) @ (k - mean_k)) for k in key], keep) for q in query
        ],
        "unary": softmax([block.scale * (mean_q @ k) for k in key], keep),
    }
    if getattr(block, "unary", None) is not None:
        rows["unary"] = softmax(list(vectors(block, "unary", sample)[:, 0]), keep)
    return {term: torch.from_numpy(np.array(value)) for term, value in rows.items()}


@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
@pytest.mark.parametrize("case", SPLIT, ids=str)
def test_terms_are_those_of_the_equations(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    for mask in (None, random_mask(inputs, full_sample=False)):
        maps = block.attention_rows(**inputs, key_padding_mask=mask)(positions(shape))
        keep = torch.ones(shape[0], *shape[2:], dtype=torch.bool) if mask is None else ~mask
        for n in range(shape[0]):
            expected = split_oracle(block, case, inputs["x"][n], keep[n].flatten().tolist())
            assert list(maps) == list(expected)
            for term, right in expected.items():
                assert maps[term].shape[-len(shape[2:]) :] == shape[2:]
                found = maps[term][n].reshape(right.shape)
                torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in SPLIT if c.name == "nl"], ids=str)
def test_the_softmax_is_the_product_of_its_terms(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    maps = block.attention_rows(**inputs)([(0, 0), (4, 1)])
    product = maps["whitened"] * maps["unary"][:, None]
    product /= product.sum((2, 3), keepdim=True)
    torch.testing.assert_close(maps["pairwise"], product, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", registered())
def test_what_a_block_computes_with_is_among_its_terms(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    queries = [(4, 3), (0, 0), (2, 1)]
    for mask in (None, random_mask(inputs, full_sample=True)):
        rows = block.attention_rows(**inputs, key_padding_mask=mask)
        used = block.attention(**inputs, queries=queries, key_padding_mask=mask)
        whitens = case.name == "dnl" and case.options.get("whitening") != "none"
        for number, query in enumerate(queries):
            row = rows([query])
            for name, weights in used.items():
                term = "whitened" if whitens and name == "pairwise" else name
                right = weights if name == "unary" else weights[:, [number]]
                if case.options.get("sub_sample"):  # 5x4 positions, 2x2 windows
                    right = torch.kron(right, torch.ones(2, 2).double()) / 4
                    right = torch.nn.functional.pad(right, (0, 0, 0, 1))
                torch.testing.assert_close(row[term], right, rtol=1e-9, atol=1e-13)


def test_forms_that_do_not_split():
    x = random_map((1, CHANNELS, 5, 4), 0)
    for case, terms in (
        (Case("nl", {"mode": "dot_product"}), ["pairwise"]),
        (Case("nl", {"mode": "concatenation"}), ["pairwise"]),
        (Case("dnl", {"unary": False}), ["pairwise", "whitened"]),
        (Case("gc"), ["unary"]),
        (Case("apnb"), ["pairwise"]),
    ):
        assert list(case.random().attention_rows(x)([(0, 0)])) == terms


class OnlyMaps(ContextBlock):
    """A user's, with no more than it must: every position attends to itself alone."""

    def transform(self, x, mask):
        return x

    def attention_maps(self, x, index, mask):
        size = x.shape[2:]
        eye = torch.eye(size.numel(), dtype=x.dtype)[index]
        return {"pairwise": eye.expand(len(x), -1, -1).unflatten(2, tuple(size))}


class OwnForward(OnlyMaps):
    """A user's with a further input."""

    def forward(self, x, *, low):
        return x

    def attention(self, x, queries=None, key_padding_mask=None, *, low):
        return {"pairwise": low[:, :1].expand(-1, len(queries), -1, -1)}


def test_blocks_of_ones_own():
    x, low = random_map((1, 4, 5, 4), 0), random_map((1, 4, 10, 8), 1)
    (row,) = OnlyMaps(4).attention_rows(x)([(2, 3)])["pairwise"][0]
    assert row.flatten().argmax() == 2 * 4 + 3 and row.sum() == 1
    found = OwnForward(4).attention_rows(x, low=low)([(0, 0)])["pairwise"]
    torch.testing.assert_close(found, low[:, :1])


class OwnMaps(NonLocalBlock):
    """A non-local block whose weights a user has changed."""

    attention_maps = OnlyMaps.attention_maps


class OwnAttention(DisentangledNonLocalBlock):
    def attention(self, x, queries=None, key_padding_mask=None):
        return {"mine": x.new_ones(len(x), len(queries), *x.shape[2:])}


class RowsAfterAll(OwnAttention):
    def map_rows(self, x, mask):
        return super().map_rows(x, mask)


def test_what_a_subclass_changes_is_shown():
    x = random_map((1, 4, 5, 4), 0)
    maps = OwnMaps(4).double().attention_rows(x)([(2, 3)])
    assert list(maps) == ["pairwise"] and maps["pairwise"][0, 0, 2, 3] == 1
    assert list(OwnAttention(4).double().attention_rows(x)([(2, 3)])) == ["mine"]
    maps = RowsAfterAll(4).double().attention_rows(x)([(2, 3)])
    assert list(maps) == ["pairwise", "whitened", "unary"]


def test_inputs_without_an_attention_that_takes_them_are_refused():
    x = random_map((1, CHANNELS, 5, 4), 0)
    for block in (OnlyMaps(CHANNELS), Case("nl").random()):
        with pytest.raises(UsageError, match=r"has no attention\(.*, low\): it cannot show"):
            block.attention_rows(x, low=x)


@pytest.mark.parametrize("name", ["gc", "snl", "nl", "dnl"])
def test_maps_are_the_callers_to_change(name):
    rows = Case(name).random().attention_rows(random_map((1, CHANNELS, 5, 4), 0))
    for term, weights in rows([(0, 0)]).items():
        kept = weights.clone()
        weights.fill_(-1)
        torch.testing.assert_close(rows([(0, 0)])[term], kept, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gc", "snl"])
def test_the_rows_of_a_shared_map_do_not_keep_the_input(name):
    x = random_map((1, CHANNELS, 5, 4), 0)
    rows = Case(name).random().attention_rows(x)
    kept = rows([(0, 0)])["unary"]
    x.zero_()  # as a model may that computes in place
    torch.testing.assert_close(rows([(4, 3)])["unary"], kept, rtol=0, atol=0)
    with pytest.raises(UsageError, match="not a position of a map"):
        rows([(5, 0)])


def test_wrong_inputs_and_queries_are_refused():
    block = Case("dnl").random()
    with pytest.raises(UsageError, match="was built for 6 channels, got 7"):
        block.attention_rows(random_map((2, CHANNELS + 1, 5, 4), 0))
    rows = block.attention_rows(random_map((2, CHANNELS, 5, 4), 0))
    with pytest.raises(UsageError, match=r"\(5, 0\) is not a position of a map of size \(5, 4\)"):
        rows([(5, 0)])
    with pytest.raises(TypeError, match="lo"):
        Case("afnb").random().attention_rows(random_map((2, CHANNELS, 5, 4), 0), lo=None)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("name", ["nl", "dnl", "gc", "apnb", "afnb"])
def test_a_row_takes_memory_linear_in_the_positions(name):
    x = torch.randn(1, 8, 100, 100)
    with Largest() as largest:
        build_context_block(name, 8).attention_rows(x)([(50, 50)])
    assert 0 < largest.numbers <= 110 * 100 * 100  # the weights of queries on pyramid cells


def test_rows_move_no_statistics_and_keep_modes():
    block = build_context_block("apnb", 8).train()
    state = {k: v.clone() for k, v in block.state_dict().items()}
    block.attention_rows(torch.randn(2, 8, 9, 9))([(0, 0)])
    assert all(torch.equal(v, state[k]) for k, v in block.state_dict().items())
    assert all(m.training for m in block.modules())


@pytest.mark.parametrize("shape", [(2, 8, 5), (2, 8, 3, 4), (1, 8, 2, 3, 2)])
@pytest.mark.parametrize(
    "spec",
    [
        {"name": "nl", "mode": "gaussian"},
        {"name": "nl", "mode": "embedded_gaussian"},
        {"name": "dnl"},
        {"name": "dnl", "whitening": "none", "unary": False},
    ],
    ids=str,
)
def test_query_and_key_are_those_of_the_softmax(spec, shape):
    block = build_context_block(spec, 8).double().eval()
    x = random_map(shape, 0)
    query, key = block.query_key(x)
    length = x[0, 0].numel()
    assert query.shape[:2] == key.shape[:2] == (shape[0], length)
    weights = (block.scale * query @ key.transpose(1, 2)).softmax(-1)
    torch.testing.assert_close(
        block.attention_rows(x)(positions(shape))["pairwise"].flatten(2), weights
    )


@pytest.mark.parametrize("spec", ["gc", "snl", "apnb", {"name": "nl", "mode": "dot_product"}])
def test_other_blocks_have_no_softmax_of_products(spec):
    assert build_context_block(spec, 8).query_key(torch.zeros(1, 8, 3, 4)) is None
