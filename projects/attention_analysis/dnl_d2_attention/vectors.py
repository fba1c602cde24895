"""Statistics of the vectors at the positions of a map, in time and memory linear in the positions.

All are computed in float64.
"""

import math

import torch
from torch import Tensor

# What rounding in fp32 makes of logits that are equal: their variance, as a share of |q|^2 |k|^2.
_ROUNDING = 1e-12


class CosineDistance:
    """Mean cosine distance of all pairs of many vectors, which are shown a few at a time.

    (1 - cos(v_i, v_j)) / 2, averaged over all i and j (arXiv 1904.11492, section 3.2): between 0,
    where all vectors have one direction, and 1/2, where on average they have none. The mean of
    cos(v_i, v_j) is the squared length of the mean of v_i / |v_i|: no pair is looked at. A zero
    vector has no direction and is left out.
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count = 0

    def add(self, vectors: Tensor) -> None:
        """Takes ``(L, C)`` vectors."""
        vectors = vectors.double()
        length = vectors.norm(dim=1, keepdim=True)
        directed = vectors / length.masked_fill(length == 0, torch.inf)
        self._sum = self._sum + directed.sum(0)
        self._count += int((length > 0).sum())

    def mean(self) -> float | None:
        """The figure; None where fewer than two vectors have a direction, or one is not finite."""
        if self._count < 2 or not isinstance(self._sum, Tensor):
            return None
        cosine = float((self._sum / self._count).square().sum())
        if not math.isfinite(cosine):
            return None
        return max(0.0, (1.0 - cosine) / 2)  # rounding may pass a cosine of 1


def mean_cosine_distance(vectors: Tensor) -> float | None:
    """See :class:`CosineDistance`; of ``(L, C)`` vectors."""
    distance = CosineDistance()
    distance.add(vectors)
    return distance.mean()


def logit_shares(query: Tensor, key: Tensor) -> dict[str, float] | None:
    """How much of the logits q_i.k_j of a softmax over j is pairwise, and how much is unary.

    Up to what is the same for all j, q_i.k_j is (q_i - mu_q).(k_j - mu_k) + mu_q.k_j (arXiv
    2006.06668, eq. 3 to 6). The variance over j of each term, averaged over i, follows from the
    covariances S of queries and keys: tr(S_q S_k) of the whitened pairwise term, mu_q' S_k mu_q of
    the unary one; averaged over i the two do not covary, so they add up to that of the logits.

    Args:
        query, key: ``(L, C')`` and ``(Lk, C')`` tokens.

    Returns:
        ``pairwise`` and ``unary``, which sum to 1; None where all logits are equal, or not finite.
    """
    query, key = query.double(), key.double()
    mean = query.mean(0)
    covariances = [_covariance(query), _covariance(key)]
    pairwise = float((covariances[0] * covariances[1]).sum())
    unary = float(mean @ covariances[1] @ mean)
    total = pairwise + unary
    size = float(query.square().sum(1).mean() * key.square().sum(1).mean())
    if not _ROUNDING * size < total < float("inf"):
        return None
    return {"pairwise": pairwise / total, "unary": unary / total}


def _covariance(vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(0)
    return centred.t() @ centred / len(vectors)
