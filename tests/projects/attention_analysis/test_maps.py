"""Statistics of maps: closed forms, planted regions, and all of it once more by brute force."""

import itertools
import math

import pytest
import torch

from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock, build_context_block
from dnl_d2_attention.maps import map_statistics

SIZE = (4, 6)
LENGTH = SIZE[0] * SIZE[1]


class Planted(ContextBlock):
    """A block whose maps are given."""

    def __init__(self, weights, term="pairwise"):
        super().__init__(1)
        self.weights, self.term = weights, term

    def transform(self, x, mask):
        return x

    def attention_maps(self, x, index, mask):
        if self.term == "unary":
            return {"unary": self.weights.view(1, *x.shape[2:])}
        rows = self.weights if index is None else self.weights[index]
        return {self.term: rows.view(1, len(rows), *x.shape[2:])}


def statistics(weights, size=SIZE, term="pairwise", **options):
    x = torch.zeros(1, 1, *size)
    return map_statistics(Planted(weights, term), x, **options)[term]


def random_maps(count=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, count, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def positions(size=SIZE):
    return torch.tensor(list(itertools.product(*map(range, size))), dtype=torch.float64)


def halves():
    """Regions: the left half of the map and the right one."""
    return (torch.arange(SIZE[1]) >= SIZE[1] // 2).long().repeat(SIZE[0])


def test_uniform_attention():
    found = statistics(torch.full((LENGTH, LENGTH), 1 / LENGTH), regions=halves())
    reach = float(torch.cdist(positions(), positions()).mean())
    assert found == pytest.approx(
        {
            "cosine_distance": 0, "entropy": math.log(LENGTH), "reach": reach, "entropy_share": 1,
            "divergence_from_mean": 0, "pair_divergence": 0,
            "own_region": 0.5, "own_region_chance": 0.5,
            "boundary": 1 / 3, "boundary_chance": 1 / 3,  # two columns of six
        },
        abs=1e-6,
    )  # fmt: skip


def test_each_attends_to_itself():
    found = statistics(torch.eye(LENGTH), regions=halves())
    assert found["cosine_distance"] == pytest.approx((1 - 1 / LENGTH) / 2)
    assert found["entropy"] == found["reach"] == found["entropy_share"] == 0
    assert found["divergence_from_mean"] == pytest.approx(math.log(LENGTH))
    assert found["pair_divergence"] == pytest.approx(math.log(2))
    assert found["own_region"] == 1
    assert found["boundary"] == pytest.approx(1 / 3)


def test_all_attend_to_one():
    weights = torch.zeros(LENGTH, LENGTH)
    weights[:, 0] = 1
    found = statistics(weights, regions=halves())
    assert found["cosine_distance"] == found["pair_divergence"] == pytest.approx(0, abs=1e-12)
    assert found["reach"] == pytest.approx(float(positions().norm(dim=1).mean()))
    assert found["own_region"] == pytest.approx(0.5) and found["boundary"] == 0


def test_a_map_within_regions_and_one_on_boundaries():
    regions = halves()
    same = (regions[:, None] == regions[None]).double()
    found = statistics(same / same.sum(1, keepdim=True), regions=regions)
    assert found["own_region"] == pytest.approx(1) and found["own_region_chance"] == 0.5
    edge = torch.zeros(SIZE, dtype=torch.float64)
    edge[:, 2:4] = 1 / 8
    found = statistics(edge.flatten(), term="unary", regions=regions)
    assert found["boundary"] == pytest.approx(1)
    assert found["boundary_chance"] == pytest.approx(1 / 3)
    assert not {"cosine_distance", "pair_divergence", "divergence_from_mean"} & set(found)


def entropy(p):
    return float(-(p[p > 0] * p[p > 0].log()).sum())


@pytest.mark.parametrize("at_once", [1, 5 * LENGTH, 2**22])
def test_all_of_it_by_brute_force(at_once):
    weights, regions = random_maps(), halves()
    regions[[0, 7, 13]] = -1
    found = statistics(weights, regions=regions, at_once=at_once)
    cosines = torch.nn.functional.cosine_similarity(weights[:, None], weights[None], dim=2)
    each = [entropy(row) for row in weights]
    pairs = [*itertools.combinations(range(LENGTH), 2)]
    divergences = [
        entropy((weights[i] + weights[j]) / 2) - (each[i] + each[j]) / 2 for i, j in pairs
    ]
    known = [i for i in range(LENGTH) if regions[i] >= 0]
    edges = []
    for i in known:
        near = [j for j in known if float((positions()[i] - positions()[j]).abs().sum()) == 1]
        edges.append(any(regions[j] != regions[i] for j in near))
    own, chance, edge = [], [], []
    for i in known:
        inside = weights[i, known] / weights[i, known].sum()
        mine = torch.tensor([bool(regions[j] == regions[i]) for j in known])
        own.append(float(inside[mine].sum()))
        chance.append(float(mine.double().mean()))
        edge.append(float(inside[torch.tensor(edges)].sum()))
    expected = {
        "cosine_distance": float((1 - cosines).mean() / 2),
        "entropy": sum(each) / LENGTH,
        "entropy_share": sum(each) / LENGTH / math.log(LENGTH),
        "reach": float((weights * torch.cdist(positions(), positions())).sum() / LENGTH),
        "divergence_from_mean": entropy(weights.mean(0)) - sum(each) / LENGTH,
        "pair_divergence": sum(divergences) / len(pairs),
        "own_region": sum(own) / len(known),
        "own_region_chance": sum(chance) / len(known),
        "boundary": sum(edge) / len(known),
        "boundary_chance": sum(edges) / len(known),
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_padding_is_neither_query_nor_key():
    torch.manual_seed(0)
    block = build_context_block({"name": "nl", "inter_channels": 4}, 4).eval()
    x = torch.randn(1, 4, *SIZE) * 20
    wide, mask = torch.cat([x, torch.randn(1, 4, 4, 2) * 50], 3), torch.zeros(1, 4, 8).bool()
    mask[..., 6:] = True
    alone, padded = map_statistics(block, x), map_statistics(block, wide, mask=mask)
    for term in ("pairwise", "whitened", "uniform"):
        assert padded[term] == pytest.approx(alone[term], rel=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (48, 96), (45, 60)])
@pytest.mark.parametrize("count", [48, 96, 1024])
def test_some_queries_are_of_all_rows_and_columns_alike(size, count):
    seen = []

    class Asked(Planted):
        def attention_maps(self, x, index, mask):
            seen.extend(index.tolist())
            return {"pairwise": torch.ones(1, len(index), *size) / (size[0] * size[1])}

    length = size[0] * size[1]
    map_statistics(Asked(None), torch.zeros(1, 1, *size), queries=count)
    asked = seen[-min(count, length) :]  # after those that tell the size of a map
    assert len(set(asked)) == min(count, length)
    places = torch.tensor(asked)
    for place, side in ((places // size[1], size[0]), (places % size[1], size[1])):
        assert float((place + 0.5).mean() / side) == pytest.approx(0.5, abs=0.04)
        assert float((place / side).std()) == pytest.approx(1 / math.sqrt(12), rel=0.1)


@pytest.mark.parametrize("name", ["nl", "dnl", "gc", "snl", "apnb"])
@pytest.mark.parametrize("size", [(3, 5), (2, 3, 4)])
def test_every_block_on_pictures_and_clips(name, size):
    torch.manual_seed(0)
    block = build_context_block(name, 8).eval()
    found = map_statistics(block, torch.randn(1, 8, *size))
    assert found["uniform"]["reach"] > 0
    terms = {"nl": "pairwise", "dnl": "whitened", "gc": "unary", "snl": "unary", "apnb": "pairwise"}
    assert 0 < found[terms[name]]["entropy_share"] <= 1 + 1e-9


def test_keys_of_another_map():
    torch.manual_seed(0)
    block = build_context_block({"name": "afnb", "low_channels": 4}, 8).eval()
    low = torch.randn(1, 4, 6, 10)
    found = map_statistics(block, torch.randn(1, 8, 3, 5), inputs={"low": low})
    assert 0 < found["pairwise"]["reach"] < 6  # in cells of the map of queries


def test_weights_that_do_not_sum_to_one_have_a_distance_alone():
    torch.manual_seed(0)
    block = build_context_block({"name": "nl", "mode": "dot_product"}, 8).eval()
    found = map_statistics(block, torch.randn(1, 8, 3, 5))
    assert set(found["pairwise"]) == {"cosine_distance"}


def test_a_block_without_maps_says_so():
    class Blind(ContextBlock):
        def transform(self, x, mask):
            return x

    with pytest.raises(UsageError, match="cannot show"):
        map_statistics(Blind(1), torch.zeros(1, 1, 2, 2))


def test_maps_that_are_not_finite_have_no_figures():
    block, x = build_context_block("nl", 8).eval(), torch.randn(1, 8, 3, 5)
    x[0, 0, 1, 1] = torch.nan
    with pytest.raises(UsageError, match="map is not finite"):
        map_statistics(block, x)
