"""A norm that Detectron2 does not have."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


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


_NORMS = {"fixBN": FixedBatchNorm2d}


def norm_layer(norm: str | Callable[[int], nn.Module] | None):
    """What :func:`detectron2.layers.get_norm` takes, for its own names and for ``fixBN``."""
    return _NORMS.get(norm, norm) if isinstance(norm, str) else norm
