"""Kernels that a block launches, counted on a CPU: at many sizes they are what a GPU waits for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dnl_d2_parity.benchmarks.block_cases import Settings
from dnl_d2_parity.benchmarks.block_pairs import build

# Operators that compute nothing and are no views by their schema.
_FREE = {
    "_reshape_alias", "_unsafe_view", "detach", "empty", "empty_like", "empty_strided",
    "lift_fresh", "new_empty", "new_empty_strided", "resize_",
}  # fmt: skip
_SIZE = (16, 24)


class LaunchCounter(TorchDispatchMode):
    """Counts operators in its context that are more than a view.

    The backward pass of a convolution counts once for each gradient that is asked of it, each of
    which is a kernel; every other operator counts once.

    Attributes:
        operators: the counts, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = str(func.overloadpacket).rpartition(".")[2]
        if not func.is_view and name not in _FREE:
            self.operators[name] += sum(args[-1]) if name == "convolution_backward" else 1
        return func(*args, **(kwargs or {}))


def count_launches(
    block: str, side: str, settings: Settings, *, autocast: bool, dtype: torch.dtype
) -> tuple[int, int]:
    """Operators of a pass forward, and of one backward.

    Args:
        block, side: see :func:`dnl_d2_parity.benchmarks.block_pairs.build`.
        settings: the widths.
        autocast: whether to run under autocast to bfloat16.
        dtype: of the map.
    """
    module = build(block, side, settings).train()
    x = torch.randn(1, settings.channels, *_SIZE, dtype=dtype, requires_grad=True)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return module(x)

    forward().sum().backward()  # what is kept from one call to the next is there then
    module.zero_grad()
    x.grad = None
    with LaunchCounter() as ahead:
        out = forward()
    upstream = torch.ones_like(out)
    with LaunchCounter() as back:
        out.backward(upstream)
    return ahead.operators.total(), back.operators.total()
