"""Batch norm over the pictures of all processes, where these compute on CPUs."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dnl_d2.layers.functional import full_precision


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """SyncBN for processes without accelerators, which PyTorch's refuses, as DDP refuses it.

    Parameters, statistics and their names are those of :class:`torch.nn.SyncBatchNorm`, and so is
    what it computes: batch norm of the whole batch, whatever share of it a process has. It is a
    BatchNorm2d to whoever asks for norms, such as Detectron2's parameter groups.

    Args:
        See :class:`torch.nn.BatchNorm2d`.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """As SyncBN: maps of any rank."""

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, *S) -> (N, C, *S)``; in training all processes have to call it.

        Raises:
            ValueError: there is a single value per channel, as in PyTorch's.
        """
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super().forward(x)
        output, mean, var, count = _BatchNorm.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats and count:
            self._track(mean, var * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards those of a batch; a momentum of None averages."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            running.lerp_(new.to(running.dtype), weight)


class _BatchNorm(torch.autograd.Function):
    """y = w (x - m) / sqrt(v + eps) + b with mean m and variance v over all processes.

    With x' = (x - m) / sqrt(v + eps) and averages over the whole batch, the gradient is
    dx = w / sqrt(v + eps) (dy - avg(dy) - x' avg(dy x')).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        (wide,) = full_precision(x)
        axes = _all_but_channels(x)
        count = wide.new_tensor([x.numel() / x.shape[1]])
        mean = wide.sum(axes) / count.clamp(min=1)
        squares = (wide - _along_channels(mean, x)).square().sum(axes)
        mean, var, total = _of_all(mean, squares, count)
        if total == 1:
            raise ValueError("Expected more than 1 value per channel when training, got 1")
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, total
        ctx.mark_non_differentiable(mean, var)
        scale, shift = (None if p is None else p.to(wide.dtype) for p in (weight, bias))
        output = F.batch_norm(wide, mean, var, scale, shift, training=False, eps=eps)
        return output.to(x.dtype), mean, var, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        wide, grad = full_precision(x, grad)
        scale = torch.rsqrt(var + ctx.eps)
        factor = torch.ones_like(mean) if weight is None else weight.to(mean.dtype)
        if x.numel():
            # With statistics that are given: w / sqrt(v + eps) dy, and the sums of dy x' and dy.
            given = factor, mean, var, None, None, False, ctx.eps
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                grad, wide, *given, [True, True, True]
            )
        else:  # which ends PyTorch's kernel
            of_x, (of_weight, of_bias) = wide.clone(), mean.new_zeros(2, len(mean)).unbind()
        total = torch.stack([of_weight, of_bias])
        dist.all_reduce(total)
        slope, shift = total * factor * scale / max(ctx.count, 1)
        slope = slope * scale
        of_x.add_(_along_channels(slope * mean - shift, x))
        of_x.addcmul_(wide, _along_channels(-slope, x))
        if weight is None:
            return of_x.to(x.dtype), None, None, None
        return of_x.to(x.dtype), of_weight.to(weight), of_bias.to(weight), None


def _of_all(mean: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean, variance and number of the values per channel of all processes, in one exchange.

    Args:
        mean, squares: ``(C,)``, and sum of squared distances from it, of this process.
        count: ``(1,)``, of its values.
    """
    own = torch.cat([mean, squares, count])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    sizes = mean.numel(), squares.numel(), 1
    means, spreads, counts = torch.stack(gathered).split(sizes, dim=1)
    total = counts.sum().item()
    mean = (means * counts).sum(0) / max(total, 1)
    var = (spreads + counts * (means - mean).square()).sum(0) / max(total, 1)
    return mean, var, total


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    """``(C,)`` in a shape that goes with ``(N, C, *S)``."""
    return values.view(-1, *[1] * (x.dim() - 2))
