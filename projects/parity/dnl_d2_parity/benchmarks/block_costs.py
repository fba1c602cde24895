"""What the context blocks cost: multiply-adds of ours, maps that the public ones hold."""

from collections.abc import Callable
from dataclasses import dataclass

POOL_SCALES = (1, 3, 6, 8)


@dataclass(frozen=True)
class Cost:
    """Costs of a block, for C, C' and L positions.

    Args:
        products: (C, C', L) -> multiply-adds of our forward pass on one sample.
        maps: (C', training) -> L x L maps that the reference holds at once.
    """

    products: Callable[[int, int, int], int]
    maps: Callable[[int, bool], int]


def _softmax_maps(_: int, training: bool) -> int:
    """Logits and weights; in training the gradients of both too."""
    return 4 if training else 2


def _no_maps(_: int, __: bool) -> int:
    return 0


def _dot_maps(_: int, training: bool) -> int:
    return 3 if training else 1


def _concatenation_maps(k: int, _: bool) -> int:
    """Queries and keys repeated, C' maps each; both as one, and the convolution's copy; logits."""
    return 6 * k + 2


# The non-local block has four projections C x C' (gaussian: two).


def _nl_products(c: int, k: int, n: int) -> int:
    return 4 * c * k * n + 2 * k * n * n


def _gaussian_products(c: int, k: int, n: int) -> int:
    return 2 * c * k * n + (c + k) * n * n


def _dot_products(c: int, k: int, n: int) -> int:
    """After the projections k^T v and q (k^T v)."""
    return (4 * c * k + 2 * k * k) * n


def _concatenation_products(c: int, k: int, n: int) -> int:
    """After the projections a = w^T q, b = w^T k, b v, two prefix sums and a times one of them."""
    return (4 * c * k + 6 * k) * n


def _dnl_products(c: int, k: int, n: int) -> int:
    """As NL, and the unary term: a logit and a share of the pooled vector at each position."""
    return _nl_products(c, k, n) + (c + k) * n


def _gc_products(c: int, _: int, n: int) -> int:
    """Logits, pooling, and the bottleneck on one vector."""
    return 2 * c * n + 2 * c * (c // 4)


def _pyramid_products(c: int, k: int, n: int) -> int:
    """Shared projection, pooling of x and keys along one axis, logits, contexts, W_x x; values."""
    cells, bins = sum(s * s for s in POOL_SCALES), sum(POOL_SCALES)
    each = c * k + bins * (c + k) + cells * k + cells * c + c * c
    return each * n + cells * (2 * c * k + c * c)


COSTS = {
    "nl": Cost(_nl_products, _softmax_maps),
    "dnl": Cost(_dnl_products, _softmax_maps),
    "dot": Cost(_dot_products, _dot_maps),
    "concatenation": Cost(_concatenation_products, _concatenation_maps),
    "gaussian": Cost(_gaussian_products, _softmax_maps),
    "gc": Cost(_gc_products, _no_maps),
    "apnb": Cost(_pyramid_products, _no_maps),
}
