"""Non-local block, arXiv 1711.07971: z_i = x_i + W_o sum_j w_ij v_j."""

import itertools
import math

import numpy as np

from tests.reference.common import (
    Reference,
    conv,
    conv_norm,
    kept,
    positions,
    softmax,
    to_map,
    weighted_sum,
)


def non_local(params, options, x, mask=None, training=False):
    mode = options.get("mode", "embedded_gaussian")
    spatial = x.shape[2:]
    contexts, maps = [], []
    for n in range(len(x)):
        xs, keep = positions(x[n]), kept(mask, n, spatial)
        value = [conv(params, "value", v) for v in xs]
        query, key = xs, xs
        if mode != "gaussian":
            query = [conv(params, "query", v) for v in xs]
            key = [conv(params, "key", v) for v in xs]
        if options.get("sub_sample", False):
            value, _ = max_pool(value, spatial, keep)
            key, keep = max_pool(key, spatial, keep)
        rows = [row(params, mode, options.get("use_scale", True), q, key, keep) for q in query]
        maps.append(rows)
        contexts.append([weighted_sum(weights, value) for weights in rows])
    out = conv_norm(params, "project", contexts, training)
    return Reference(x + np.stack([to_map(o, spatial) for o in out]), np.array(maps))


def row(params, mode, use_scale, q, keys, keep):
    """w_ij of one query i for all keys j."""
    if mode == "gaussian":
        return softmax([q @ k for k in keys], keep)
    if mode == "embedded_gaussian":
        scale = math.sqrt(len(q)) if use_scale else 1.0
        return softmax([q @ k / scale for k in keys], keep)
    count = max(sum(keep), 1)
    if mode == "dot_product":
        return [q @ k / count if j else 0.0 for k, j in zip(keys, keep, strict=True)]
    w = params["concat.weight"][0, :, 0, 0]
    return [
        max(w @ np.concatenate([q, k]), 0.0) / count if j else 0.0
        for k, j in zip(keys, keep, strict=True)
    ]


def max_pool(vectors, spatial, keep):
    """2x max-pool of the last two axes (a sequence has one), over kept positions only.

    An axis of one stays; an odd last row is dropped; a window without kept positions is dropped
    from the keys.
    """
    step = [1 if axis < len(spatial) - 2 or s == 1 else 2 for axis, s in enumerate(spatial)]
    index = {p: i for i, p in enumerate(np.ndindex(*spatial))}
    pooled, pooled_keep = [], []
    for cell in np.ndindex(*(s // t for s, t in zip(spatial, step, strict=True))):
        ranges = [range(c * t, (c + 1) * t) for c, t in zip(cell, step, strict=True)]
        inside = [index[p] for p in itertools.product(*ranges)]
        inside = [vectors[i] for i in inside if keep[i]]
        pooled_keep.append(bool(inside))
        pooled.append(
            np.array([max(v[c] for v in inside) for c in range(len(vectors[0]))])
            if inside
            else np.zeros(len(vectors[0]))
        )
    return pooled, pooled_keep
