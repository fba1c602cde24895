"""Losses of overlap: Dice and Lovasz-softmax."""

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.modeling.losses.segmentation_loss import SegmentationLoss, zero_loss

_CLASSES = ("present", "all")


class DiceLoss(SegmentationLoss):
    """Dice loss of V-Net, arXiv 1606.04797: 1 - 2 sum(p t) / (sum(p^2) + sum(t^2)).

    p are probabilities and t one-hot labels; the sums run over the labelled pixels of an image. The
    loss is the mean over the ratios of all images that have such pixels. mmsegmentation's also
    counts what is predicted at ignored pixels; where there are none and with ``per_class=False``
    the two are equal.

    Args:
        per_class: a ratio for each class that is present in an image, averaged; otherwise one
            ratio for the image, whose sums run over all classes.
        eps: added to either sum of squares.
        ignore_value, loss_weight: see :class:`SegmentationLoss`.
    """

    name = "dice"

    def __init__(
        self,
        *,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        per_class: bool = True,
        eps: float = 1e-3,
    ):
        super().__init__(ignore_value=ignore_value, loss_weight=loss_weight)
        self.per_class = per_class
        self.eps = eps

    def compute(self, logits: Tensor, targets: Tensor) -> Tensor:
        valid, labels = (t.flatten(1) for t in self.labelled(targets))
        p = logits.flatten(2).softmax(1)
        # No one-hot labels of the size of the logits: what they would add goes to its class.
        at_label = p.gather(1, labels[:, None])[:, 0] * valid
        # In fp64: one fp32 number does not hold a sum over millions of pixels.
        empty = torch.zeros(p.shape[:2], dtype=torch.float64, device=p.device)
        intersection = empty.scatter_add(1, labels, at_label.double())
        area = empty.scatter_add(1, labels, valid.double())
        predicted = (p.square() * valid[:, None]).sum(-1, dtype=torch.float64)
        if not self.per_class:
            sums = (intersection, area, predicted)
            intersection, area, predicted = (s.sum(1, keepdim=True) for s in sums)
        ratio = 2 * intersection / (predicted + area + 2 * self.eps)
        present = area > 0
        return (((1 - ratio) * present).sum() / present.sum().clamp(min=1)).to(p.dtype)


class LovaszLoss(SegmentationLoss):
    """Lovasz-softmax, arXiv 1705.08790: the extension of 1 - IoU to probabilities, by class.

    The extension is piecewise linear in the errors, with slopes that depend on their order alone.
    The slopes are computed class by class without a graph, so that beside the logits' softmax one
    more tensor of its size is kept, however many classes there are.

    Args:
        classes: average over the classes ``present`` in the labels, or over ``all``.
        per_image: the mean over images that have labels, instead of one loss for the batch.
        ignore_value, loss_weight: see :class:`SegmentationLoss`.
    """

    name = "lovasz"

    def __init__(
        self,
        *,
        ignore_value: int = 255,
        loss_weight: float = 1.0,
        classes: str = "present",
        per_image: bool = False,
    ):
        super().__init__(ignore_value=ignore_value, loss_weight=loss_weight)
        if classes not in _CLASSES:
            raise UsageError(f"Lovasz classes {classes!r}: use one of {', '.join(_CLASSES)}")
        self.classes = classes
        self.per_image = per_image

    @torch.compiler.disable  # as many steps as there are classes in the labels
    def compute(self, logits: Tensor, targets: Tensor) -> Tensor:
        valid, labels = self.labelled(targets)
        if not valid.any():
            return zero_loss(logits)
        p = logits.softmax(1)
        slopes = torch.zeros_like(p)
        batches = [slice(n, n + 1) for n in range(len(p))] if self.per_image else [slice(None)]
        batches = [b for b in batches if valid[b].any()]
        constant = p.new_zeros(())
        with torch.no_grad():
            for batch in batches:
                constant += self._slopes(p[batch], labels[batch], valid[batch], slopes[batch])
        return (constant + (slopes * p).sum()) / len(batches)

    def _slopes(self, p: Tensor, labels: Tensor, valid: Tensor, slopes: Tensor) -> Tensor:
        """Fills ``slopes``, the derivative by p; returns the loss without slopes * p."""
        labels = labels[valid]
        present = labels.unique().tolist()
        used = present if self.classes == "present" else range(p.shape[1])
        constant = p.new_zeros(())
        for k in used:
            foreground = labels == k
            values = p[:, k][valid]
            slope = _error_slopes(torch.where(foreground, 1 - values, values), foreground)
            slope /= len(used)
            constant += (slope * foreground).sum()
            slopes[:, k][valid] = torch.where(foreground, -slope, slope)
        return constant


def _error_slopes(errors: Tensor, foreground: Tensor) -> Tensor:
    """What each of the ``(P,)`` errors adds to 1 - IoU, taken from the largest to the smallest.

    A foreground pixel leaves the intersection I, a background pixel joins the union U:
    1/U or I/(U (U - 1)), exact where differences of rounded ratios would cancel.
    """
    order = errors.argsort(descending=True)
    in_order = foreground[order]
    left = in_order.cumsum(0)
    total = left[-1]
    intersection = total - left
    union = total + torch.arange(1, len(left) + 1, device=left.device) - left
    added = intersection.to(errors.dtype) / union / (union - 1).clamp(min=1)
    steps = torch.where(in_order, 1 / union.to(errors.dtype), added)
    if not total:  # a class without pixels: the first error makes IoU 0, and so it stays
        steps[0] = 1.0
    return torch.empty_like(steps).scatter_(0, order, steps)
