"""Cross entropy of low-resolution logits, without holding their full-size logits."""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dnl_d2.layers.functional import autocast_off
from dnl_d2.modeling.losses.cross_entropy import CrossEntropyLoss

Resize = Callable[[Tensor], Tensor]
PartOfSum = Callable[[Tensor, slice], tuple[Tensor, Tensor]]

PART_BYTES = 64 << 20  # full-size logits that exist at a time, but at least those of one picture


def goes_by_parts(
    loss: nn.Module, predictions: Tensor, targets: Tensor
) -> TypeGuard[CrossEntropyLoss]:
    """Whether :func:`cross_entropy_by_parts` can compute this loss, and takes less memory."""
    # A compiler fuses the plain computation. Subclasses may compute something else.
    if torch.compiler.is_compiling() or type(loss) is not CrossEntropyLoss or loss.ohem is not None:
        return False
    size = predictions.shape[1] * targets.numel() * predictions.element_size()
    return size > PART_BYTES and predictions.requires_grad and torch.is_grad_enabled()


def cross_entropy_by_parts(
    loss: CrossEntropyLoss, predictions: Tensor, targets: Tensor, resize: Resize
) -> Tensor:
    """``loss(resize(predictions), targets)``, a part of the batch at a time.

    The loss is a sum over pixels. Each part's gradient is computed with it, and only that of the
    predictions is kept. It has no second derivative.

    Args:
        loss: without OHEM, which needs all pixels at once.
        predictions: ``(N, K, h, w)`` logits, fp32 or fp64.
        targets: ``(N, H, W)`` labels.
        resize: ``(n, K, h, w)`` -> ``(n, K, H, W)``, every picture by itself.
    """
    targets = targets.long()
    valid, labels = loss.labelled(targets)
    weights = loss.weights(predictions)
    factors = loss.factors(predictions, valid, labels)

    def part_of_sum(logits: Tensor, pictures: slice) -> tuple[Tensor, Tensor]:
        """Sum of w[y] (-log p[y]) over some pictures, and its gradient w[y] (p - onehot(y))."""
        log_p = logits.log_softmax(1)
        total = F.nll_loss(
            log_p, targets[pictures], weights, ignore_index=loss.ignore_value, reduction="sum"
        )
        p, index = log_p.exp_(), labels[pictures, None]
        p.scatter_add_(1, index, p.new_full((), -1.0).expand_as(index))
        return total, p.mul_(factors[pictures, None])

    picture = predictions.shape[1] * targets[0].numel() * predictions.element_size()
    pictures = max(1, PART_BYTES // picture)
    with autocast_off(predictions):
        total = _SumOfParts.apply(predictions, pictures, resize, part_of_sum)
        return loss.loss_weight * total / loss.divisor(factors, valid)


class _SumOfParts(torch.autograd.Function):
    """A sum over parts of a batch that keeps the gradient of the predictions, and nothing else.

    Arguments of ``apply``: ``(N, K, h, w)`` predictions; how many pictures a part has; how logits
    are resized; and what a part of them adds to the sum, with its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        predictions: Tensor,
        pictures: int,
        resize: Resize,
        part_of_sum: PartOfSum,
    ) -> Tensor:
        total = predictions.new_zeros(())
        gradients: list[Tensor] = []
        for start in range(0, len(predictions), pictures):
            chosen = slice(start, start + pictures)
            small = predictions[chosen].detach().requires_grad_()
            with torch.enable_grad():
                logits = resize(small)
            part, slope = part_of_sum(logits.detach(), chosen)
            total += part
            gradients += torch.autograd.grad(logits, small, slope)
        ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope, None, None, None
