"""What a training step computes with beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TrainedBatch:
    """A batch, and what its losses depend on beside the weights.

    Args:
        inputs: records as the mapper gave them.
        iteration: that trains on it.
        random_key: of :func:`dnl_d2.data.stream.seed_all`; empty where it is not known.
        parts: in which a process trains, see :class:`dnl_d2.engine.step.AccumulateGradients`.
        dtype: of autocast; None for none.
    """

    inputs: Any
    iteration: int
    random_key: tuple[int, ...] = ()
    parts: int = 1
    dtype: torch.dtype | None = None

    def split(self) -> list[Any]:
        """The parts, in their order."""
        if self.parts == 1:
            return [self.inputs]
        size = len(self.inputs) // self.parts
        return [self.inputs[i : i + size] for i in range(0, len(self.inputs), size)]

    def files(self, most: int = 4) -> str:
        """The names of its pictures, of which the rest is counted; empty where it has none."""
        records = self.inputs if isinstance(self.inputs, list | tuple) else []
        names = [r["file_name"] for r in records if isinstance(r, Mapping) and "file_name" in r]
        more = f" and {len(names) - most} more" if len(names) > most else ""
        return ", ".join(map(str, names[:most])) + more
