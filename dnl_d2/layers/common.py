"""Pieces that the blocks share: a rank-agnostic 1x1 convolution, tokens, checks of arguments."""

import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.functional import autocast_is_on, convolved_dtype
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
        return _token_product(to_tokens(x), self.weight.flatten(1), self.bias)

    def from_tokens(self, tokens: Tensor, spatial: Sequence[int]) -> Tensor:
        """As :meth:`forward`, on ``(N, L, C)`` tokens of a map of size ``spatial``."""
        bias = None if self.bias is None else self.bias[:, None]
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
    if not (x.is_cuda or torch.is_grad_enabled()):
        # The products are large there, and few; to lay weights side by side is a copy.
        return [_widened(_joint_product(x, group), dtype) for group in groups]
    convs = [conv for group in groups for conv in group]
    packed = _widened(_joint_product(x, convs, aligned=True), dtype)
    widths = [sum(conv.out_channels for conv in group) for group in groups]
    unread = packed.shape[-1] - sum(widths)
    return list(packed.split([*widths, unread] if unread else widths, -1))[: len(groups)]


def _joint_product(x: Tensor, convs: Sequence[PointwiseConv], *, aligned: bool = False) -> Tensor:
    """``(N, L, C')``, C' the sum of the widths or, if ``aligned``, up to seven more."""
    if len(convs) == 1:
        return convs[0].tokens(x)
    weights = [conv.weight for conv in convs]
    biases = [x.new_zeros(c.out_channels) if c.bias is None else c.bias for c in convs]
    missing = -sum(conv.out_channels for conv in convs) % _ALIGNED
    if aligned and missing:  # some channel again, whichever: nobody reads it
        weights.append(weights[0][:missing].detach())
        biases.append(biases[0][:missing].detach())
    return _token_product(to_tokens(x), torch.cat(weights).flatten(1), torch.cat(biases))


_ALIGNED = 8  # GPU kernels want rows of a multiple of this many numbers


def _token_product(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight t + bias of every token t: ``(N, L, C)`` -> ``(N, L, C')``, contiguous."""
    if tokens.is_contiguous():
        return F.linear(tokens, weight, bias)
    # Of a map whose channels do not lie together; a matmul would copy it.
    if not torch.compiler.is_compiling() and tokens.shape[0] == 1:
        return F.linear(tokens.squeeze(0), weight, bias).unsqueeze(0)
    return _added_product(bias, tokens, weight.t().expand(tokens.shape[0], -1, -1))


def _added_product(constant: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """constant + first @ second for each sample."""
    if constant is None:
        return torch.bmm(first, second)
    return torch.baddbmm(constant, first, second)


def _widened(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    return tokens.to(dtype) if dtype.itemsize > tokens.dtype.itemsize else tokens


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
        column = None if bias is None else bias[:, None]
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
    context = context.to(convolved_dtype(x))
    shared = None if shared is None else shared.to(context.dtype)
    dtypes = {x.dtype, context.dtype, project.weight.dtype}
    simple = project.norm is None and project.activation is None and len(dtypes) == 1
    if not simple or autocast_is_on(x):
        context = context if shared is None else context + shared
        return x + project.from_tokens(context, x.shape[2:])
    # One pass over the map for the residual and all constants, then one product added to it.
    weights, flat = batched(project.weight.flatten(1), x.shape[0]), x.flatten(2)
    constant = None if project.bias is None else project.bias[:, None]
    if shared is not None:
        constant = _added_product(constant, weights, shared.transpose(1, 2))
    out = flat.clone() if constant is None else flat + constant
    if out.transpose(1, 2).is_contiguous():  # of a channels-last map
        # A bfloat16 product into a result that is not contiguous takes a thousand times as long
        # on a CPU, so that both sides of it are transposed.
        out = out.transpose(1, 2).baddbmm_(context, weights.transpose(1, 2)).transpose(1, 2)
    else:
        out.baddbmm_(weights, context.transpose(1, 2))
    return out.unflatten(2, x.shape[2:])


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


def broadcast_token(token: Tensor, rank: int) -> Tensor:
    """``(N, 1, C)`` -> ``(N, C, 1, ...)`` with ``rank`` ones, to add to a map."""
    return token.transpose(1, 2).reshape(token.shape[0], token.shape[2], *(1,) * rank)


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
