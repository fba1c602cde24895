"""The pyramid blocks of ANN, arXiv 1908.07678: few average-pooled keys and values."""

import itertools
import math

import numpy as np

from tests.reference.common import (
    Reference,
    conv,
    conv_norm,
    kept,
    mean,
    positions,
    relu,
    softmax,
    to_map,
    weighted_sum,
)


def asymmetric_pyramid(params, options, x, mask=None, training=False):
    """ReLU(norm(W [context, x])); keys and queries are one projection of the same map."""
    key = conv_norm(params, "attend.key", [positions(s) for s in x], training, relu)
    return _asymmetric(params, options, x, x, mask, training, key, key, relu)


def asymmetric_fusion(params, options, x, mask=None, training=False, *, low=None):
    """norm(W [context, x]); queries from the deep map ``x``, keys and values from ``low``."""
    low = x if low is None else low
    key = conv_norm(params, "attend.key", [positions(s) for s in low], training, relu)
    query = conv_norm(params, "attend.query", [positions(s) for s in x], training, relu)
    return _asymmetric(params, options, x, low, mask, training, query, key, None)


def _asymmetric(params, options, x, low, mask, training, query, key, activation):
    scales = options.get("pool_scales", (1, 3, 6, 8))
    fused, maps = [], []
    for n in range(len(x)):
        keep = kept(mask, n, low.shape[2:])
        value = [conv(params, "attend.value", v) for v in positions(low[n])]
        members = [[i for i in c if keep[i]] for c in cells(low.shape[2:], scales)]
        members = [c for c in members if c]
        pooled_key = [mean([key[n][i] for i in c], [True] * len(c)) for c in members]
        pooled_value = [mean([value[i] for i in c], [True] * len(c)) for c in members]
        rows, concatenated = [], []
        for q, v in zip(query[n], positions(x[n]), strict=True):
            logits = [q @ k / math.sqrt(len(q)) for k in pooled_key]
            weights = softmax(logits, [True] * len(logits))
            context = weighted_sum(weights, pooled_value) if members else 0.0 * value[0]
            concatenated.append(np.concatenate([conv(params, "attend.project", context), v]))
            rows.append(spread(weights, members, len(keep)))
        fused.append(concatenated)
        maps.append(rows)
    out = conv_norm(params, "bottleneck", fused, training, activation)
    return Reference(np.stack([to_map(o, x.shape[2:]) for o in out]), np.array(maps))


def cells(spatial, scales):
    """Flat positions of each pyramid cell: from floor(i S / s) up to ceil((i + 1) S / s)."""
    index = {p: i for i, p in enumerate(np.ndindex(*spatial))}
    out = []
    for s in scales:
        for cell in np.ndindex(*(s,) * len(spatial)):
            ranges = [
                range(c * size // s, -(-(c + 1) * size // s))
                for c, size in zip(cell, spatial, strict=True)
            ]
            out.append([index[p] for p in itertools.product(*ranges)])
    return out


def spread(weights, members, length):
    """What weights on cells put on single positions: a cell is the mean of its members."""
    out = [0.0] * length
    for weight, cell in zip(weights, members, strict=True):
        for i in cell:
            out[i] += weight / len(cell)
    return out
