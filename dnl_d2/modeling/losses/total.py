"""Weighted sums of losses, and the loss that a YAML config describes."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.modeling.losses.cross_entropy import CrossEntropyLoss, HardPixels
from dnl_d2.modeling.losses.overlap import DiceLoss, LovaszLoss
from dnl_d2.modeling.losses.segmentation_loss import SegmentationLoss


class SumOfLosses(nn.Module):
    """Several losses, each times its ``loss_weight``; heads log them one by one.

    Args:
        losses: of different kinds, with the same ``ignore_value``.
    """

    def __init__(self, losses: Sequence[SegmentationLoss]):
        super().__init__()
        names = [loss.name for loss in losses]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a sum of losses needs at least one and each kind once, got {names}")
        ignored = {loss.ignore_value for loss in losses}
        if len(ignored) > 1:
            raise UsageError(f"losses that are added ignore different labels: {sorted(ignored)}")
        (self.ignore_value,) = ignored
        sizes = [loss.num_classes for loss in losses if loss.num_classes is not None]
        self.num_classes = max(sizes, default=None)
        self.losses = nn.ModuleDict({loss.name: loss for loss in losses})

    def terms(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms by name, weights included."""
        return {name: loss(logits, targets) for name, loss in self.losses.items()}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``(N, K, H, W)`` logits, ``(N, H, W)`` labels -> a scalar."""
        return sum(self.terms(logits, targets).values(), logits.new_zeros(()))


def build_loss(head: CfgNode) -> SegmentationLoss | SumOfLosses:
    """The loss that the LOSS_ keys of MODEL.SEM_SEG_HEAD describe.

    Raises:
        UsageError: no term, a negative weight, or what the losses' constructors raise.
    """
    weights = dict(head.LOSS_TERMS)
    if min(weights.values()) < 0 or not any(weights.values()):
        raise UsageError(
            f"MODEL.SEM_SEG_HEAD.LOSS_TERMS {weights}: no weight may be negative, one must not be 0"
        )
    if not weights["CROSS_ENTROPY"] and (head.LOSS_OHEM.ENABLED or len(head.LOSS_CLASS_WEIGHTS)):
        raise UsageError(
            "MODEL.SEM_SEG_HEAD: LOSS_OHEM and LOSS_CLASS_WEIGHTS belong to cross entropy, which "
            "LOSS_TERMS.CROSS_ENTROPY 0 leaves out"
        )
    builders = {"CROSS_ENTROPY": _cross_entropy, "DICE": _dice, "LOVASZ": _lovasz}
    try:
        losses = [
            builders[term](head, {"ignore_value": head.IGNORE_VALUE, "loss_weight": weight})
            for term, weight in weights.items()
            if weight
        ]
    except UsageError as error:
        raise UsageError(f"MODEL.SEM_SEG_HEAD.LOSS_...: {error}") from error
    return losses[0] if len(losses) == 1 else SumOfLosses(losses)


def _cross_entropy(head: CfgNode, shared: dict) -> CrossEntropyLoss:
    ohem = head.LOSS_OHEM
    return CrossEntropyLoss(
        average=head.LOSS_AVERAGE,
        class_weights=list(head.LOSS_CLASS_WEIGHTS) or None,
        ohem=HardPixels(threshold=ohem.THRESHOLD, min_kept=ohem.MIN_KEPT) if ohem.ENABLED else None,
        **shared,
    )


def _dice(head: CfgNode, shared: dict) -> DiceLoss:
    return DiceLoss(per_class=head.LOSS_DICE.PER_CLASS, **shared)


def _lovasz(head: CfgNode, shared: dict) -> LovaszLoss:
    return LovaszLoss(
        classes=head.LOSS_LOVASZ.CLASSES, per_image=head.LOSS_LOVASZ.PER_IMAGE, **shared
    )
