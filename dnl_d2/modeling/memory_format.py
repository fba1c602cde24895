"""The order in which weights, and with them feature maps, lie in memory."""

import torch
from torch import nn

from dnl_d2.layers.context_block import ContextBlock


def weights_channels_last(model: nn.Module) -> None:
    """Lays the weights of 2-d convolutions channels-last, in place; their maps follow.

    Context blocks read maps in either order, and their 1x1 weights are matrices, which stay.

    Args:
        model: whose parameters no optimizer or DistributedDataParallel knows yet.
    """
    blocks = (m for m in model.modules() if isinstance(m, ContextBlock))
    matrices = {p for block in blocks for p in block.parameters()}
    for parameter in model.parameters():
        if parameter.dim() == 4 and parameter not in matrices:
            # Not by contiguous(), which leaves the strides of 1x1 weights, and their gradients'
            # would then differ.
            laid = torch.empty_like(parameter, memory_format=torch.channels_last)
            parameter.data = laid.detach().copy_(parameter.detach())
