"""What the losses of the segmentation heads have in common."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from dnl_d2.errors import UsageError
from dnl_d2.layers.functional import autocast_off, full_precision


class SegmentationLoss(nn.Module, ABC):
    """A function of full-size logits and labels, computed in fp32 (fp64 for fp64 logits).

    Subclasses implement :meth:`compute`, which sees no autocast.

    Args:
        ignore_value: label that takes no part.
        loss_weight: factor of the loss, where several are added.
    """

    name: str  # in logs, where several are added
    num_classes: int | None = None  # that the loss is made for; None: any

    def __init__(self, *, ignore_value: int = 255, loss_weight: float = 1.0):
        super().__init__()
        if not loss_weight > 0:
            raise UsageError(f"{type(self).__name__}: loss_weight={loss_weight} is not positive")
        self.ignore_value = ignore_value
        self.loss_weight = loss_weight

    @abstractmethod
    def compute(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss before ``loss_weight``."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``(N, K, H, W)`` logits, ``(N, H, W)`` labels -> a scalar; 0 if nothing is labelled."""
        with autocast_off(logits):
            (logits,) = full_precision(logits)
            return self.loss_weight * self.compute(logits, targets.long())

    def terms(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What a head logs, by name: here the loss alone, whose name is empty."""
        return {"": self(logits, targets)}

    def labelled(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Where there is a label, and the labels with 0 where there is none."""
        valid = targets != self.ignore_value
        return valid, targets.masked_fill(~valid, 0)


def zero_loss(logits: Tensor) -> Tensor:
    """0 that depends on ``logits``, for batches without labels."""
    return logits.sum() * 0.0
