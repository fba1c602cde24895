"""What the context blocks cost: multiply-adds of ours, maps that the public ones hold."""

POOL_SCALES = (1, 3, 6, 8)


def _pyramid_products(c: int, k: int, n: int) -> int:
    """Shared projection, pooling of x and keys along one axis, logits, contexts, W_x x; values."""
    cells, bins = sum(s * s for s in POOL_SCALES), sum(POOL_SCALES)
    each = c * k + bins * (c + k) + cells * k + cells * c + c * c
    return each * n + cells * (2 * c * k + c * c)


def _softmax_maps(_: int, training: bool) -> int:
    """Logits and weights; in training the gradients of both too."""
    return 4 if training else 2


# Block -> (C, C', L) -> multiply-adds of our forward pass on one sample. The non-local block has
# four projections C x C' (gaussian: two).
PRODUCTS = {
    "nl": lambda c, k, n: 4 * c * k * n + 2 * k * n * n,
    # and the unary term: a logit and a share of the pooled vector at each position
    "dnl": lambda c, k, n: 4 * c * k * n + 2 * k * n * n + (c + k) * n,
    # after the projections k^T v and q (k^T v)
    "dot": lambda c, k, n: (4 * c * k + 2 * k * k) * n,
    # after the projections a = w^T q, b = w^T k, b v, two prefix sums and a times one of them
    "concatenation": lambda c, k, n: (4 * c * k + 6 * k) * n,
    "gaussian": lambda c, k, n: 2 * c * k * n + (c + k) * n * n,
    # logits, pooling, and the bottleneck on one vector
    "gc": lambda c, k, n: 2 * c * n + 2 * c * (c // 4),
    "apnb": _pyramid_products,
}
# Block -> (C', training) -> L x L maps that the reference holds at once.
MAPS = {
    "nl": _softmax_maps,
    "dnl": _softmax_maps,
    "dot": lambda k, training: 3 if training else 1,
    # queries and keys repeated, C' maps each; both as one, and the convolution's copy; logits
    "concatenation": lambda k, training: 6 * k + 2,
    "gaussian": _softmax_maps,
    "gc": lambda k, training: 0,
    "apnb": lambda k, training: 0,
}
