"""Pieces that the blocks share: a rank-agnostic 1x1 convolution, tokens, checks of arguments."""

import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.functional import autocast_is_on, cast, convolved_dtype
from dnl_d2.layers.norms import Norm, get_norm

Activation = Callable[[Tensor], Tensor] | None


class PointwiseConv(nn.Conv2d):
    """1x1 convolution with optional norm and activation on ``(N, C, *S)`` maps of rank 1 to 3.

    One class, and one set of pretrained weights, serves every rank; see :func:`apply_2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bias: bool = True,
        norm: Norm = None,
        activation: Activation = None,
    ):
        super().__init__(in_channels, out_channels, 1, bias=bias)
        self.norm = get_norm(norm, out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return apply_2d(self._forward_2d, x)

    def _forward_2d(self, x: Tensor) -> Tensor:
        return self._finish(super().forward(x))

    def _finish(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)

    def tokens(self, x: Tensor) -> Tensor:
        """As :meth:`forward`, to contiguous tokens: ``(N, C, *S)`` -> ``(N, L, C')``.

        One product that reads the map as it lies, in place of a convolution and a transposing copy.
        """
        if self.norm is not None or self.activation is not None:
            return to_tokens(self(x))
        return _token_products(x, (self.weight, self.bias))[0]

    def from_tokens(self, tokens: Tensor, spatial: Sequence[int]) -> Tensor:
        """As :meth:`forward`, on ``(N, L, C)`` tokens of a map of size ``spatial``."""
        bias = None if self.bias is None else self.bias.unsqueeze(1)
        weights = batched(self.weight.flatten(1), tokens.shape[0])
        out = _added_product(bias, weights, tokens.transpose(1, 2)).unflatten(2, tuple(spatial))
        return out if self.norm is None and self.activation is None else apply_2d(self._finish, out)


def project_tokens(x: Tensor, *groups: Sequence[PointwiseConv], dtype: torch.dtype) -> list[Tensor]:
    """1x1 convolutions of one map, all as one product.

    Args:
        x: ``(N, C, *S)``.
        groups: convolutions without norm and activation.
        dtype: what to cast the products to, if they come in a narrower one.

    Returns:
        For each group ``(N, L, C')`` tokens, where C' is the sum of its widths: those of its first
        convolution before those of its second.
    """
    if x.is_cuda or torch.is_grad_enabled():
        convs = [conv for group in groups for conv in group]
        (packed,) = _widened(_token_products(x, _side_by_side(convs, aligned=True)), dtype)
        widths = [sum(conv.out_channels for conv in group) for group in groups]
        unread = packed.shape[-1] - sum(widths)
        parts = packed.split_with_sizes([*widths, unread] if unread else widths, -1)
        return list(parts[: len(groups)])
    # The products are large there, and few; to lay weights side by side is a copy.
    return _widened(_token_products(x, *map(_side_by_side, groups)), dtype)


_Affine = tuple[Tensor, Tensor | None]  # a matrix (C', C), as it is or with two ones, and a bias


def _side_by_side(convs: Sequence[PointwiseConv], *, aligned: bool = False) -> _Affine:
    """The weights of all, and up to seven rows more if ``aligned``."""
    if len(convs) == 1:
        return convs[0].weight, convs[0].bias
    weights, biases = [conv.weight for conv in convs], [conv.bias for conv in convs]
    known = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
    missing = -sum(map(len, weights)) % _ALIGNED
    if aligned and missing:  # some channel again, whichever: nobody reads it
        weights.append(weights[0][:missing].detach())
        known.append(known[0][:missing].detach())
    return torch.cat(weights), torch.cat(known)


_ALIGNED = 8  # GPU kernels want rows of a multiple of this many numbers


def _token_products(x: Tensor, *layers: _Affine) -> list[Tensor]:
    """Each layer on every token of a map: ``(N, C, *S)`` -> contiguous ``(N, L, C')``."""
    if x.shape[0] == 1 and not torch.compiler.is_compiling():
        rows = x.reshape(x.shape[1], -1).t()
        return [F.linear(rows, w.flatten(1), b).unsqueeze(0) for w, b in layers]
    tokens = to_tokens(x)
    if tokens.is_contiguous():
        return [F.linear(tokens, w.flatten(1), b) for w, b in layers]
    # Of a map whose channels do not lie together; a matmul would copy it.
    matrices = [w.flatten(1).t().expand(x.shape[0], -1, -1) for w, _ in layers]
    return [_added_product(b, tokens, m) for m, (_, b) in zip(matrices, layers, strict=True)]


def _added_product(constant: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """constant + first @ second for each sample."""
    if constant is None:
        return torch.bmm(first, second)
    return torch.baddbmm(constant, first, second)


def _widened(products: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    own = products[0].dtype
    narrow = own != dtype and own.itemsize < dtype.itemsize
    return [p.to(dtype) for p in products] if narrow else products


def batched(matrix: Tensor, count: int) -> Tensor:
    """A matrix for each of ``count`` samples, a view; of one its gradient is no sum."""
    alone = not torch.compiler.is_compiling() and count == 1
    return matrix[None] if alone else matrix.expand(count, -1, -1)


def map_product(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight x + bias at every position, in the memory order of ``x``.

    Args:
        weight: ``(C', C)``.
        x: ``(N, C, *S)``.
        bias: ``(C',)`` or None.

    Returns:
        ``(N, C', L)``.
    """
    flat = x.flatten(2)
    if flat.is_contiguous() or not flat.transpose(1, 2).is_contiguous():
        column = None if bias is None else bias.unsqueeze(1)
        return _added_product(column, batched(weight, x.shape[0]), flat)
    return F.linear(flat.transpose(1, 2), weight, bias).transpose(1, 2)


def add_projected(
    x: Tensor, context: Tensor, project: PointwiseConv, shared: Tensor | None = None
) -> Tensor:
    """x + project(context + shared): the residual sum of a block.

    Args:
        x: ``(N, C, *S)``.
        context: ``(N, L, C')`` tokens.
        project: from C' to C channels.
        shared: ``(N, 1, C')``, what all positions get; or None.

    Returns:
        ``(N, C, *S)``.
    """
    weight, bias, autocast = project.weight, project.bias, autocast_is_on(x)
    dtype = convolved_dtype(x) if autocast else x.dtype
    context = cast(context, dtype)
    shared = None if shared is None else cast(shared, dtype)
    simple = project.norm is None and project.activation is None
    if autocast or not (simple and dtype == weight.dtype):
        context = context if shared is None else context + shared
        return x + project.from_tokens(context, x.shape[2:])
    # One pass over the map for the residual and all constants, then one product added to it.
    weights, flat = batched(weight.flatten(1), x.shape[0]), x.flatten(2)
    constant = None if bias is None else bias.unsqueeze(1)
    if shared is not None:
        constant = _added_product(constant, weights, shared.transpose(1, 2))
    out = flat.clone() if constant is None else flat + constant
    if out.is_contiguous():
        out.baddbmm_(weights, context.transpose(1, 2))
    else:  # of a channels-last map
        # A bfloat16 product into a result that is not contiguous takes a thousand times as long
        # on a CPU, so that both sides of it are transposed.
        out = out.transpose(1, 2).baddbmm_(context, weights.transpose(1, 2)).transpose(1, 2)
    return out.view_as(x)


def apply_2d(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a position-wise 2-d layer to ``(N, C, *S)``: as ``(N, C, L, 1)`` if not 2-d."""
    spatial = x.shape[2:]
    if len(spatial) == 2:
        return layer(x)
    return layer(x.flatten(2).unsqueeze(-1)).flatten(2).unflatten(2, spatial)


def to_tokens(x: Tensor) -> Tensor:
    """``(N, C, *S)`` -> ``(N, L, C)``, a view."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, spatial: Sequence[int]) -> Tensor:
    """``(N, L, C)`` -> ``(N, C, *S)``."""
    return tokens.transpose(1, 2).unflatten(2, tuple(spatial))


def init_normal(std: float, *convs: nn.Conv2d) -> None:
    """Normal weights and zero biases."""
    for conv in convs:
        nn.init.normal_(conv.weight, std=std)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def init_output(conv: PointwiseConv, *, zero: bool) -> None:
    """Normal weights, or such that ``conv`` outputs exact zeros.

    It does so through its norm's affine part if it has one.
    """
    if not zero:
        init_normal(0.01, conv)
        return
    last = conv if conv.norm is None else conv.norm
    weight, bias = (getattr(last, name, None) for name in ("weight", "bias"))
    if weight is None:
        raise UsageError("a zero-initialised output projection needs an affine norm or none")
    if conv.norm is not None:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    nn.init.zeros_(weight)
    if bias is not None:
        nn.init.zeros_(bias)


def check_known(what: str, value: str, known: Collection[str]) -> None:
    """Raises :class:`UsageError` unless ``value`` is among the known ones, which it lists."""
    if value not in known:
        raise UsageError(f"unknown {what} {value!r}; use one of {', '.join(known)}")


def check_positive(**sizes: float) -> None:
    """Raises :class:`UsageError` for the first argument that is not a positive finite number."""
    for name, value in sizes.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise UsageError(f"{name} must be a positive number, got {value!r}")


def check_count(**counts: int) -> None:
    """Raises :class:`UsageError` for the first argument that is not a positive integer."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} must be a positive integer, got {value!r}")
