"""The functions on tokens that blocks are made of."""

import pytest
import torch

from dnl_d2.layers import pairwise_attention, pairwise_weights, unary_attention
from dnl_d2.layers.functional import center, position_mean, unary_weights
from tests.layers.cases import random_map


def row(similarity, scale, q, keys):
    """w_ij of one query over the given keys."""
    if similarity == "softmax":
        raised = [torch.exp(scale * (q * k).sum()) for k in keys]
        return [r / sum(raised) for r in raised]
    if similarity == "dot":
        return [scale * (q * k).sum() / len(keys) for k in keys]
    return [torch.relu(q[0] + k[0]) / len(keys) for k in keys]


@pytest.mark.parametrize("similarity", ["softmax", "dot", "relu_sum"])
@pytest.mark.parametrize("queries", [1, 3])
def test_pairwise_attention_one_query_at_a_time(similarity, queries):
    width = 1 if similarity == "relu_sum" else 4
    scale = 1.0 if similarity == "relu_sum" else 0.7
    q, k, v = (
        random_map((2, n, d), i) for i, (n, d) in enumerate([(queries, width), (5, width), (5, 3)])
    )
    mask = torch.tensor([[False, True, False, False, True], [False] * 5])
    for key_padding_mask in (None, mask):
        expected = torch.zeros(2, queries, 3, dtype=torch.float64)
        for n in range(2):
            keep = [j for j in range(5) if key_padding_mask is None or not mask[n, j]]
            for i in range(queries):
                weights = row(similarity, scale, q[n, i], [k[n, j] for j in keep])
                for w, j in zip(weights, keep, strict=True):
                    expected[n, i] += w * v[n, j]
        options = dict(similarity=similarity, scale=scale, key_padding_mask=key_padding_mask)
        torch.testing.assert_close(pairwise_attention(q, k, v, **options), expected)
        torch.testing.assert_close(pairwise_weights(q, k, **options) @ v, expected)


def test_centring_only_the_query_changes_the_softmax():
    """The key mean adds one constant per query (spec of the block); the query mean does not."""
    q, k = random_map((2, 5, 4), 0), random_map((2, 7, 4), 1)
    both = pairwise_weights(center(q), center(k))
    torch.testing.assert_close(pairwise_weights(center(q), k), both)
    assert (pairwise_weights(q, k) - both).abs().max() > 0.01


def test_constant_logits_average():
    x = random_map((2, 5, 3), 0)
    mask = torch.tensor([[False, True, False, False, True], [False] * 5])
    averaged = unary_attention(torch.full((2, 5), 7.0).double(), x, mask)
    torch.testing.assert_close(averaged, position_mean(x, mask))
    torch.testing.assert_close(averaged[0, 0], x[0, [0, 2, 3]].mean(0))
    torch.testing.assert_close(center(x, mask)[0, [0, 2, 3]].mean(0), torch.zeros(3).double())


@pytest.mark.parametrize("similarity", ["softmax", "dot", "relu_sum"])
def test_all_masked_gives_zeros(similarity):
    q, k, v = random_map((1, 3, 1), 0), random_map((1, 4, 1), 1), random_map((1, 4, 2), 2)
    mask = torch.ones(1, 4, dtype=torch.bool)
    out = pairwise_attention(q, k, v, similarity=similarity, key_padding_mask=mask)
    torch.testing.assert_close(out, torch.zeros(1, 3, 2).double())
    torch.testing.assert_close(unary_weights(k[..., 0], mask), torch.zeros(1, 4).double())
    torch.testing.assert_close(position_mean(v, mask), torch.zeros(1, 1, 2).double())


def test_softmax_of_huge_logits():
    q = torch.tensor([[[1e4]]], dtype=torch.float64)
    k = torch.tensor([[[1e4], [1e4 - 1e-4], [-1e4]]], dtype=torch.float64)
    e = torch.tensor(-1.0, dtype=torch.float64).exp()
    expected = torch.tensor([[[1 / (1 + e), e / (1 + e), 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(pairwise_weights(q, k), expected, rtol=1e-6, atol=1e-9)
