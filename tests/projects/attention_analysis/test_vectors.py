"""Distances and shares against their definitions, written out pair by pair."""

import math

import pytest
import torch

from dnl_d2.layers import build_context_block
from dnl_d2_attention.vectors import CosineDistance, logit_shares, mean_cosine_distance


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distance_is_the_mean_over_all_pairs():
    vectors = random(9, 5) + 0.5
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    assert mean_cosine_distance(vectors) == pytest.approx(float((1 - cosines).mean() / 2))


def test_distance_of_what_is_known():
    assert mean_cosine_distance(torch.ones(7, 3)) == pytest.approx(0, abs=1e-12)
    assert mean_cosine_distance(torch.eye(4)) == pytest.approx((1 - 1 / 4) / 2)
    opposite = torch.tensor([[1.0, 2.0], [-2.0, -4.0]])
    assert mean_cosine_distance(opposite) == pytest.approx(0.5)


def test_distance_does_not_depend_on_portions_or_lengths_of_vectors():
    vectors, parts = random(30, 6), CosineDistance()
    for part in (vectors * random(30, 1, seed=1).abs()).split(7):
        parts.add(part)
    assert parts.mean() == pytest.approx(mean_cosine_distance(vectors))


def test_vectors_without_a_direction_are_left_out():
    vectors = torch.cat([random(5, 4), torch.zeros(3, 4, dtype=torch.float64)])
    assert mean_cosine_distance(vectors) == pytest.approx(mean_cosine_distance(vectors[:5]))
    assert mean_cosine_distance(torch.zeros(4, 2)) is None
    assert mean_cosine_distance(vectors[:1]) is None


def brute_force(query, key):
    """Variances over j of both terms, averaged over i, term by term."""
    mean_query, mean_key = query.mean(0), key.mean(0)
    pairwise = torch.stack([(key - mean_key) @ (q - mean_query) for q in query])
    unary = key @ mean_query
    logits = query @ key.t()
    parts = [pairwise.var(1, correction=0).mean(), unary.var(0, correction=0)]
    return [float(part) for part in parts], float(logits.var(1, correction=0).mean())


def test_shares_are_those_of_the_variances_which_add_up():
    query, key = random(11, 4) + 0.3, random(13, 4, seed=1) * 2 - 0.2
    (pairwise, unary), total = brute_force(query, key)
    assert pairwise + unary == pytest.approx(total)
    shares = logit_shares(query, key)
    assert shares == pytest.approx({"pairwise": pairwise / total, "unary": unary / total})


def test_shares_of_what_is_known():
    same = torch.ones(6, 1, dtype=torch.float64) @ random(1, 3)
    assert logit_shares(same, random(6, 3)) == pytest.approx({"pairwise": 0, "unary": 1}, abs=1e-12)
    centred = random(6, 3) - random(6, 3).mean(0)
    assert logit_shares(centred, random(6, 3, seed=1))["unary"] == pytest.approx(0, abs=1e-12)
    assert logit_shares(random(6, 3), same) is None  # all keys alike: no logit differs
    assert logit_shares(random(6, 3) * math.inf, random(6, 3)) is None


@pytest.mark.parametrize("shape", [(1, 8, 4, 5), (1, 8, 2, 3, 2)])
def test_shares_of_a_block(shape):
    torch.manual_seed(0)
    block = build_context_block({"name": "nl", "inter_channels": 4}, 8).eval()
    query, key = block.query_key(torch.randn(shape))
    assert sum(logit_shares(query[0], key[0]).values()) == pytest.approx(1)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_vectors_that_are_not_finite_have_no_distance(value):
    vectors = torch.randn(5, 3)
    vectors[1, 1] = value
    assert mean_cosine_distance(vectors) is None
