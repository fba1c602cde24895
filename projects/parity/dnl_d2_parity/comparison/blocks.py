"""Context blocks of two models with the same weights, in float64."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dnl_d2_parity.comparison.models import BLOCKS, Twins
from dnl_d2_parity.differences import relative


@contextlib.contextmanager
def float64_constants() -> Iterator[None]:
    """Makes ``torch.tensor(0.05)`` a float64, which mmsegmentation's DNL divides by."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def block_difference(twins: Twins, *, size: tuple[int, int] = (9, 13)) -> float:
    """Largest relative difference of the head's context blocks in float64."""
    heads = twins.ours.sem_seg_head, twins.reference.decode_head
    return max(
        compare_blocks(getattr(heads[0], ours), getattr(heads[1], theirs), size=size)
        for theirs, ours in BLOCKS[twins.method]
    )


def compare_blocks(ours: nn.Module, theirs: nn.Module, *, size: tuple[int, ...]) -> float:
    """Relative difference of two blocks in float64 on random maps."""
    ours, theirs = (copy.deepcopy(block).double().eval() for block in (ours, theirs))
    generator = torch.Generator().manual_seed(0)

    def maps(channels: int) -> Tensor:
        return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)

    x = maps(ours.in_channels)
    with torch.no_grad(), float64_constants():
        if hasattr(ours, "low_channels"):
            low = maps(ours.low_channels)
            return relative(ours(x, low=low), theirs(low, x))
        return relative(ours(x), theirs(x))
