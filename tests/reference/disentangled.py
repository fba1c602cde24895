"""Disentangled non-local block, arXiv 2006.06668.

z_i = x_i + W_o [ sum_j softmax_j((q_i - mu_q).(k_j - mu_k) / (s tau)) v_j
                  + sum_j softmax_j(m_j) v_j ]
"""

import math

import numpy as np

from tests.reference.common import (
    Reference,
    conv,
    conv_norm,
    kept,
    mean,
    normalize,
    positions,
    relu,
    softmax,
    to_map,
    weighted_sum,
)
from tests.reference.non_local import max_pool

TEMPERATURE = {"mmseg": 0.05, "paddleseg": 0.05, "paper-seg": 1.0, "paper-det": 0.05}


def disentangled(params, options, x, mask=None, training=False):
    tau = options.get("temperature") or TEMPERATURE[options.get("preset", "mmseg")]
    gamma = float(params["gamma"][0]) if "gamma" in params else 1.0
    whitening = options.get("whitening", "channel")
    has_unary = options.get("unary", True)
    spatial = x.shape[2:]
    sums, pairwise, unary = [], [], []
    for n in range(len(x)):
        xs, keep = positions(x[n]), kept(mask, n, spatial)
        source, source_keep = xs, keep
        if options.get("sub_sample", False):
            source, source_keep = max_pool(xs, spatial, keep)
        query = [conv(params, "query", v) for v in xs]
        key = [conv(params, "key", v) for v in source]
        value = [conv(params, "value", v) for v in source]
        mu_q, mu_k = mu(query, keep, whitening), mu(key, source_keep, whitening)
        s = math.sqrt(len(query[0])) if options.get("use_scale", True) else 1.0
        rows = [
            softmax([(q - mu_q) @ (k - mu_k) / (s * tau) for k in key], source_keep) for q in query
        ]
        common = 0.0
        if has_unary:
            shared = softmax([conv(params, "unary", v)[0] for v in source], source_keep)
            common = weighted_sum(shared, value)
            unary.append(shared)
        sums.append([gamma * weighted_sum(weights, value) + common for weights in rows])
        pairwise.append(rows)
    if "project.weight" in params:
        last = relu if options.get("preset") == "paddleseg" else None
        out = conv_norm(params, "project", sums, training, last)
    else:
        out = normalize(params, "norm", sums, training)
    z = x + np.stack([to_map(o, spatial) for o in out])
    return Reference(z, np.array(pairwise), np.array(unary) if has_unary else None)


def mu(vectors, keep, whitening):
    """What whitening subtracts: a vector, a number, or nothing."""
    if whitening == "channel":
        return mean(vectors, keep)
    if whitening == "layer":
        numbers = [c for v, k in zip(vectors, keep, strict=True) if k for c in v]
        return math.fsum(numbers) / len(numbers) if numbers else 0.0
    return 0.0
