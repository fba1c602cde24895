"""Statistics of the attention maps of one feature map, a few queries at a time."""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.layers import ContextBlock
from dnl_d2_attention.truth import NONE, boundaries
from dnl_d2_attention.vectors import CosineDistance

_AT_ONCE = 2**22  # weights of a term that are held at a time: 16 MiB
_GOLDEN = (math.sqrt(5) - 1) / 2
_SAMPLED = 48  # queries whose maps are compared in pairs
Statistics = dict[str, float]
Value = TypeVar("Value")


class _Truth:
    """The ground truth of the cells: who is of which region.

    Args:
        regions: ``(L,)`` numbers, ``NONE`` of cells of no region.
        size: of the map.
    """

    def __init__(self, regions: Tensor, size: tuple[int, int]):
        self.known = regions != NONE
        numbers, self.index = regions.unique(return_inverse=True)
        self.members = torch.nn.functional.one_hot(self.index, len(numbers)).double()
        self.members[~self.known] = 0.0
        self.share = self.members.sum(0) / max(int(self.known.sum()), 1)
        self.edge = (boundaries(regions, size) & self.known).double()

    @property
    def edge_share(self) -> float:
        return float(self.edge.sum() / max(int(self.known.sum()), 1))


class _Term:
    """Sums over the maps of one term.

    Args:
        places: ``(L, rank)`` positions of queries, and of keys.
        truth: of the cells, which are queries and keys; or None.
        sampled: numbers of the queries whose maps are compared in pairs.
        keys: how many there are, without padding.
    """

    def __init__(
        self, places: tuple[Tensor, Tensor], truth: _Truth | None, sampled: Tensor, keys: int
    ):
        self._places, self._truth, self._sampled, self._keys = places, truth, sampled, keys
        self._distance, self._kept = CosineDistance(), list[Tensor]()
        self._sum: Tensor | float = 0.0
        self._entropy = self._reach = 0.0
        self._own = self._edge = self._chance = 0.0
        self._count = self._judged = 0
        self._sums_to_one = True

    def add(self, weights: Tensor, queries: Tensor) -> None:
        """Takes ``(Q, L)`` maps of queries with these flat numbers, ``(Q,)``."""
        weights = weights.double()
        self._distance.add(weights)
        self._count += len(queries)
        one = bool(((weights.sum(1) - 1).abs() < 1e-3).all() and (weights >= 0).all())
        self._sums_to_one &= one
        if not self._sums_to_one:
            return
        self._sum = self._sum + weights.sum(0)
        self._entropy += float(_entropy(weights).sum())
        reach = torch.cdist(self._places[0][queries], self._places[1])
        self._reach += float((weights * reach).sum())
        self._kept.append(weights[torch.isin(queries, self._sampled)])
        if self._truth is not None:
            self._judge(weights, queries, self._truth)

    def _judge(self, weights: Tensor, queries: Tensor, truth: _Truth) -> None:
        inside = truth.known[queries]
        weights, queries = weights[inside], queries[inside]
        mass = weights @ truth.members
        total = mass.sum(1)
        seen = total > 0
        own = mass[torch.arange(len(queries)), truth.index[queries]]
        self._own += float((own / total)[seen].sum())
        self._edge += float((weights @ truth.edge / total)[seen].sum())
        self._chance += float(truth.share[truth.index[queries]][seen].sum())
        self._judged += int(seen.sum())

    def statistics(self) -> Statistics:
        """What there is to say; figures that mean nothing are not there."""
        found: Statistics = {}
        distance = self._distance.mean()
        if distance is not None:
            found["cosine_distance"] = distance
        if not self._sums_to_one:  # the forms without a softmax
            return found
        assert isinstance(self._sum, Tensor)
        entropy = self._entropy / self._count
        found |= {"entropy": entropy, "reach": self._reach / self._count}
        if self._keys > 1:
            found["entropy_share"] = entropy / math.log(self._keys)
        if self._count > 1:
            mixed = float(_entropy(self._sum[None] / self._count))
            found["divergence_from_mean"] = max(0.0, mixed - entropy)
        pairs = _pairwise_divergence(torch.cat(self._kept))
        if pairs is not None:
            found["pair_divergence"] = pairs
        return found | self._judgement()

    def _judgement(self) -> Statistics:
        if self._truth is None or not self._judged:
            return {}
        return {
            "own_region": self._own / self._judged,
            "own_region_chance": self._chance / self._judged,
            "boundary": self._edge / self._judged,
            "boundary_chance": self._truth.edge_share,
        }


def map_statistics(
    block: ContextBlock,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    inputs: dict[str, Tensor] | None = None,
    regions: Tensor | None = None,
    queries: int | None = None,
    at_once: int = _AT_ONCE,
) -> dict[str, Statistics]:
    """Statistics of a block's maps, by term; memory is linear in the positions.

    For each term of :meth:`dnl_d2.layers.ContextBlock.attention_rows`, averaged over the queries:

    * ``cosine_distance``: between the maps, see :class:`~dnl_d2_attention.vectors.CosineDistance`;
    * ``divergence_from_mean``: Jensen-Shannon divergence of all maps at once, the entropy of their
      mean less the mean of their entropies; ``pair_divergence``: of two maps at a time, averaged
      over the pairs of 48 evenly spread queries; in nats, the latter at most log 2;
    * ``entropy`` in nats; ``entropy_share``: of log L, which uniform weights on the L keys have;
    * ``reach``: mean distance from a query to what it attends to, in cells;
    * with regions ``own_region``: share of the weights that lies in the query's own region,
      ``boundary``: in cells next to another region; each with ``_chance``, what uniform weights
      have. Only cells of a region count, as queries and as keys.

    Of a map that all queries share, distance and divergences are left out: there is one map. Of
    weights that do not sum to 1 (forms without a softmax) there is the distance alone.

    Args:
        block: in evaluation mode.
        x: ``(1, C, *S)``, what it reads.
        mask: ``(1, *S)``, True at padding, which is neither query nor key.
        inputs: what else the block reads, by keyword.
        regions: ``(L,)`` numbers of regions of the cells, or None; for maps whose queries and keys
            are the same cells.
        queries: at most so many, evenly spread; None for all.
        at_once: weights of a term to hold at a time.

    Returns:
        Figures by term, and those of uniform weights (``reach``) as term ``"uniform"``.

    Raises:
        UsageError: the block shows no maps, or they are not finite.
    """
    rows = block.attention_rows(x, mask, **(inputs or {}))
    spatial = tuple(x.shape[2:])
    every = [*itertools.product(*map(range, spatial))]
    inside = range(len(every)) if mask is None else (~mask.flatten()).nonzero().flatten().tolist()
    wanted = spread(inside, len(inside) if queries is None else queries)
    size = tuple(next(iter(rows([every[0]]).values())).shape[-len(spatial) :])
    places = _centres(spatial, spatial), _centres(spatial, size)
    truth = _Truth(regions, (size[0], size[1])) if regions is not None and size == spatial else None
    sampled = torch.tensor(spread(wanted, _SAMPLED))
    keys = len(inside) if size == spatial else len(places[1])
    terms, shared = dict[str, _Term](), dict[str, Tensor]()
    step = max(at_once // len(places[1]), 1)
    for chunk in torch.tensor(wanted).split(step):
        for name, weights in rows([every[i] for i in chunk.tolist()]).items():
            if not weights.isfinite().all():
                raise UsageError(f"the {name} map is not finite (inf or nan)")
            if weights.dim() == 1 + len(spatial):  # of all queries
                shared[name] = weights
                continue
            term = terms.setdefault(name, _Term(places, truth, sampled, keys))
            term.add(weights.flatten(2)[0].cpu(), chunk)
    found = {name: term.statistics() for name, term in terms.items()}
    alone = {name: weights.flatten().cpu() for name, weights in shared.items()}
    uniform = torch.zeros(len(places[1]), dtype=torch.float64)
    uniform[inside if size == spatial else slice(None)] = 1.0
    for name, weights in (alone | {"uniform": uniform / uniform.sum()}).items():
        term = _Term(places, truth, sampled[:1], keys)
        for chunk in torch.tensor(wanted).split(step):
            term.add(weights.expand(len(chunk), -1), chunk)
        found[name] = _without_comparison(term.statistics())
    found["uniform"] = {"reach": found["uniform"]["reach"]}
    return found


def _without_comparison(statistics: Statistics) -> Statistics:
    compared = ("cosine_distance", "divergence_from_mean", "pair_divergence")
    return {name: value for name, value in statistics.items() if name not in compared}


def _centres(spatial: Sequence[int], size: Sequence[int]) -> Tensor:
    """``(L, rank)`` centres of the cells of ``size``, in cells of ``spatial``."""
    axes = [
        (torch.arange(s, dtype=torch.float64) + 0.5) * (full / s)
        for full, s in zip(spatial, size, strict=True)
    ]
    return torch.cartesian_prod(*axes).view(-1, len(axes))


def _entropy(weights: Tensor) -> Tensor:
    """In nats, of ``(Q, L)`` weights; zeros add nothing."""
    return torch.special.entr(weights).sum(1)


def _pairwise_divergence(maps: Tensor) -> float | None:
    """Mean Jensen-Shannon divergence of the pairs of some maps, in nats."""
    if len(maps) < 2:
        return None
    entropies, total = _entropy(maps), 0.0
    for i in range(len(maps) - 1):
        mixed = _entropy((maps[i] + maps[i + 1 :]) / 2)
        total += float((mixed - (entropies[i] + entropies[i + 1 :]) / 2).sum())
    return max(0.0, total / (len(maps) * (len(maps) - 1) / 2))


def spread(values: Sequence[Value], count: int) -> list[Value]:
    """Some of the values, one of each of ``count`` stretches of equal length.

    Places within the stretches follow the multiples of the golden ratio: at even distances, a
    stretch as wide as a map would take all queries from one column.
    """
    count = min(count, len(values))
    return [values[int((i + i * _GOLDEN % 1) * len(values) / count)] for i in range(count)]
