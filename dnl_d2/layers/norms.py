"""Norm layers by name, with Detectron2's names and one that it does not have."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dnl_d2.errors import UsageError

Norm = str | Callable[[int], nn.Module] | None


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics stay as they were loaded, while weight and bias train.

    The tables of GCNet call it "fixBN" (MMDetection: ``norm_eval=True, requires_grad=True``).
    Detectron2's ``FrozenBN`` keeps weight and bias too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C, H, W)``, in training as in evaluation."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def _group_norm(channels: int) -> nn.GroupNorm:
    if channels % 32:
        raise UsageError(f"norm 'GN' has 32 groups, which do not divide {channels} channels")
    return nn.GroupNorm(32, channels)


# Those that need torch alone.
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "GN": _group_norm,
    "fixBN": FixedBatchNorm2d,
}


def get_norm(norm: Norm, channels: int) -> nn.Module | None:
    """The norm layer of a name, or of a function of the number of channels.

    Args:
        norm: BN, SyncBN, GN or ``fixBN`` (:class:`FixedBatchNorm2d`); or any other name that
            Detectron2 knows (FrozenBN, LN, naiveSyncBN, ...); "" and None mean no norm.
        channels: of the map to normalise.

    Raises:
        UsageError: unknown name, one of Detectron2's where that is missing, or GN for a number of
            channels that 32 does not divide.
    """
    if not norm:
        return None
    if callable(norm):
        return norm(channels)
    if norm in _NORMS:
        return _NORMS[norm](channels)
    try:
        from detectron2.layers import get_norm as detectron2_norm
    except ImportError:
        raise UsageError(
            f"norm {norm!r} needs detectron2; with torch alone: {', '.join(_NORMS)}"
        ) from None
    try:
        return detectron2_norm(norm, channels)
    except (KeyError, AttributeError):
        raise UsageError(
            f"unknown norm {norm!r}; use {', '.join(_NORMS)}, LN, FrozenBN, naiveSyncBN or '' for "
            "none"
        ) from None
