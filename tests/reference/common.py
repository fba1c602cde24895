"""Arithmetic that the oracles share. A map of one sample is a list of vectors, row-major."""

import math
from dataclasses import dataclass

import numpy as np

EPS = 1e-5  # of every norm


@dataclass
class Reference:
    """What a block should return.

    Attributes:
        output: ``(N, C, *S)``.
        pairwise: ``(N, L, K)``, weights of every position over the keys (over positions, where
            keys are pools of positions).
        unary: ``(N, L)``, the map that all positions share.
    """

    output: np.ndarray
    pairwise: np.ndarray | None = None
    unary: np.ndarray | None = None


def positions(sample):
    """``(C, *S)`` -> list of vectors."""
    return [sample[(slice(None), *p)] for p in np.ndindex(sample.shape[1:])]


def to_map(vectors, spatial):
    """List of vectors -> ``(C, *S)``."""
    out = np.zeros((len(vectors[0]), *spatial))
    for vector, p in zip(vectors, np.ndindex(*spatial), strict=True):
        out[(slice(None), *p)] = vector
    return out


def kept(mask, n, spatial):
    """Which positions of sample ``n`` count."""
    return [mask is None or not mask[(n, *p)] for p in np.ndindex(*spatial)]


def conv(params, name, vector):
    """W v + b."""
    out = params[f"{name}.weight"][:, :, 0, 0] @ vector
    return out + params[f"{name}.bias"] if f"{name}.bias" in params else out


def relu(vector):
    return np.array([max(v, 0.0) for v in vector])


def normalize(params, name, batch, training, groups=2):
    """Batch norm (running statistics unless ``training``) or group norm; nothing without params.

    ``batch`` is a list (samples) of lists (positions) of vectors.
    """
    if f"{name}.weight" not in params:
        return batch
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    channels = len(weight)
    out = [[np.zeros(channels) for _ in sample] for sample in batch]
    for n, sample in enumerate(batch):
        for c in range(channels):
            if f"{name}.running_mean" not in params:
                width = channels // groups
                group = range(c // width * width, c // width * width + width)
                mu, var = moments([vector[g] for vector in sample for g in group])
            elif training:
                mu, var = moments([vector[c] for other in batch for vector in other])
            else:
                mu, var = params[f"{name}.running_mean"][c], params[f"{name}.running_var"][c]
            for i, vector in enumerate(sample):
                out[n][i][c] = (vector[c] - mu) / math.sqrt(var + EPS) * weight[c] + bias[c]
    return out


def moments(numbers):
    """Mean and biased variance."""
    mu = math.fsum(numbers) / len(numbers)
    return mu, math.fsum((v - mu) ** 2 for v in numbers) / len(numbers)


def conv_norm(params, name, batch, training, activation=None):
    """W v + b, then the norm ``<name>.norm`` if there is one, then the activation."""
    batch = [[conv(params, name, vector) for vector in sample] for sample in batch]
    batch = normalize(params, f"{name}.norm", batch, training)
    if activation is None:
        return batch
    return [[activation(vector) for vector in sample] for sample in batch]


def softmax(logits, keep):
    """Weights that sum to one over the kept entries; 0 at the others."""
    peak = max((z for z, k in zip(logits, keep, strict=True) if k), default=0.0)
    raised = [math.exp(z - peak) if k else 0.0 for z, k in zip(logits, keep, strict=True)]
    total = math.fsum(raised)
    return [r / total if k else 0.0 for r, k in zip(raised, keep, strict=True)]


def weighted_sum(weights, vectors):
    total = np.zeros(len(vectors[0]))
    for weight, vector in zip(weights, vectors, strict=True):
        total = total + weight * vector
    return total


def mean(vectors, keep):
    """Mean of the kept vectors; zero if there is none."""
    total, count = np.zeros(len(vectors[0])), 0
    for vector, k in zip(vectors, keep, strict=True):
        if k:
            total, count = total + vector, count + 1
    return total / count if count else total
