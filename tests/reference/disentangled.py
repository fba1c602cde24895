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
    softmax,
    to_map,
    weighted_sum,
)

TEMPERATURE = {"mmseg": 0.05, "paper-seg": 1.0, "paper-det": 0.05}


def disentangled(params, options, x, mask=None, training=False):
    tau = options.get("temperature") or TEMPERATURE[options.get("preset", "mmseg")]
    gamma = float(params["gamma"][0]) if "gamma" in params else 1.0
    spatial = x.shape[2:]
    sums, pairwise, unary = [], [], []
    for n in range(len(x)):
        xs, keep = positions(x[n]), kept(mask, n, spatial)
        query = [conv(params, "query", v) for v in xs]
        key = [conv(params, "key", v) for v in xs]
        value = [conv(params, "value", v) for v in xs]
        mu_q, mu_k = mean(query, keep), mean(key, keep)
        s = math.sqrt(len(mu_q)) if options.get("use_scale", True) else 1.0
        rows = [softmax([(q - mu_q) @ (k - mu_k) / (s * tau) for k in key], keep) for q in query]
        shared = softmax([conv(params, "unary", v)[0] for v in xs], keep)
        common = weighted_sum(shared, value)
        sums.append([gamma * weighted_sum(weights, value) + common for weights in rows])
        pairwise.append(rows)
        unary.append(shared)
    if "project.weight" in params:
        out = conv_norm(params, "project", sums, training)
    else:
        out = normalize(params, "norm", sums, training)
    z = x + np.stack([to_map(o, spatial) for o in out])
    return Reference(z, np.array(pairwise), np.array(unary))
