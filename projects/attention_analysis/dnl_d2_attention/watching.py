"""What the context blocks of a model read and give while it predicts."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from dnl_d2.layers import ContextBlock


@dataclass(frozen=True)
class Call:
    """One run of a block.

    Attributes:
        name: of the block in the model.
        block: itself.
        x: what it read, ``(N, C, *S)``.
        inputs: what else it read, by keyword, a mask of padding among them.
        out: what it gave.
    """

    name: str
    block: ContextBlock
    x: Tensor
    inputs: dict[str, Tensor]
    out: Tensor


class Watched:
    """What was seen of a model that ran once.

    Attributes:
        calls: the runs of its blocks, in order.
        padded: (height, width) of what its backbone read; None if that was no picture.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.padded: tuple[int, int] | None = None


@contextlib.contextmanager
def watching(model: nn.Module, only: str | None = None) -> Iterator[Watched]:
    """Fills the object with what is seen while the model runs.

    Args:
        model: any that has context blocks.
        only: the name of one block; None for all.
    """
    seen = Watched()

    def reading(name: str, module: nn.Module) -> object:
        def hook(block: nn.Module, args: tuple, options: dict, out: Tensor) -> None:
            assert isinstance(block, ContextBlock)
            given = inspect.signature(block.forward).bind(*args, **options).arguments
            (_, x), *others = given.items()
            inputs = {key: value for key, value in others if value is not None}
            seen.calls.append(Call(name, block, x, inputs, out))

        return module.register_forward_hook(hook, with_kwargs=True)

    def measuring(_: nn.Module, args: tuple) -> None:
        if args and isinstance(args[0], Tensor) and args[0].dim() == 4:
            seen.padded = (args[0].shape[2], args[0].shape[3])

    handles = [
        reading(name, module)
        for name, module in model.named_modules()
        if isinstance(module, ContextBlock) and only in (None, name)
    ]
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        handles.append(backbone.register_forward_pre_hook(measuring))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
