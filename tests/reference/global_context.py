"""Simplified non-local and global context blocks, arXiv 1904.11492."""

import math

import numpy as np

from tests.reference.common import (
    EPS,
    Reference,
    conv,
    conv_norm,
    kept,
    mean,
    moments,
    positions,
    relu,
    softmax,
    weighted_sum,
)


def simplified_non_local(params, options, x, mask=None, training=False):
    """z_i = x_i + W_v sum_j a_j x_j, a = softmax_j(W_k x_j)."""
    pooled, maps = attention_pool(params, x, mask)
    added = conv_norm(params, "value", [[c] for c in pooled], training)
    z = x.copy()
    for n in range(len(x)):
        for p in np.ndindex(*x.shape[2:]):
            z[(n, slice(None), *p)] += added[n][0]
    return Reference(z, unary=maps)


def global_context(params, options, x, mask=None, training=False):
    """z_i = x_i * sigmoid(t_mul(c)) + t_add(c), t(c) = W_2 ReLU(LN(W_1 c)); either may be off."""
    if options.get("pooling", "att") == "att":
        pooled, maps = attention_pool(params, x, mask)
    else:
        keeps = [kept(mask, n, x.shape[2:]) for n in range(len(x))]
        pooled = [mean(positions(sample), keep) for sample, keep in zip(x, keeps, strict=True)]
        maps = np.array([[k / max(sum(keep), 1) for k in keep] for keep in keeps])
    fusion = options.get("fusion", ("add",))
    z = x.copy()
    for n in range(len(x)):
        factor, term = np.ones(x.shape[1]), np.zeros(x.shape[1])
        if "mul" in fusion:
            logits = transform(params, "channel_mul", pooled[n])
            factor = np.array([1 / (1 + math.exp(-v)) for v in logits])
        if "add" in fusion:
            term = transform(params, "channel_add", pooled[n])
        for p in np.ndindex(*x.shape[2:]):
            z[(n, slice(None), *p)] = z[(n, slice(None), *p)] * factor + term
    return Reference(z, unary=maps)


def attention_pool(params, x, mask):
    """sum_j a_j x_j of each sample, and the a_j."""
    pooled, maps = [], []
    for n in range(len(x)):
        xs, keep = positions(x[n]), kept(mask, n, x.shape[2:])
        weights = softmax([conv(params, "unary", v)[0] for v in xs], keep)
        pooled.append(weighted_sum(weights, xs))
        maps.append(weights)
    return pooled, np.array(maps)


def transform(params, name, c):
    """W_2 ReLU(LN(W_1 c)); LN over the bottleneck channels."""
    hidden = conv(params, f"{name}.0", c)
    mu, var = moments(list(hidden))
    weight, bias = params[f"{name}.1.weight"].ravel(), params[f"{name}.1.bias"].ravel()
    hidden = (hidden - mu) / math.sqrt(var + EPS) * weight + bias
    return conv(params, f"{name}.3", relu(hidden))
