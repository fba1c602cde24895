"""What every format is made from: a model as a function of one tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Of the pictures that are traced: no size is that of another axis, or a multiple of a stride.
EXAMPLE_SIZE = (203, 317)


@dataclass(frozen=True)
class Graph:
    """A module that takes one tensor and returns a tensor or a tuple of them.

    Args:
        task: ``segmentation`` or ``detection``.
        module: in evaluation mode.
        example: an input, to trace the module with.
        input_name: of the input.
        axes: names of the input's axes whose length is open, by their number.
        outputs: for each output, by name, the names of its open axes.
    """

    task: str
    module: nn.Module
    example: Tensor
    input_name: str
    axes: Mapping[int, str]
    outputs: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the module returns, as a tuple."""
        with torch.no_grad():
            return as_tuple(self.module(images))


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs of a module of one output or of several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
