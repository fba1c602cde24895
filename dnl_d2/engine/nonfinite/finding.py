"""Tensors with values that are not finite."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor


@dataclass(frozen=True)
class NonFinite:
    """A tensor with values that are not finite.

    Args:
        what: ``input``, ``weight``, ``output``, ``statistic`` or ``gradient``, a module's of its
            input.
        name: of the module, parameter or buffer; empty for the model itself.
        kind: the module's class; empty for anything else.
        count, size: how many values are not finite, of how many.
        low, high: the extremes of the others; NaN where there are none.
        made_here: whether everything that it was computed from was finite.
    """

    what: str
    name: str
    kind: str
    count: int
    size: int
    low: float
    high: float
    made_here: bool

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        name = (self.name or "the model") + kind
        return f"{self.what} of {name}, {self.count} of {self.size} values"


def first_cause(found: Sequence[NonFinite]) -> NonFinite | None:
    """The first that was made from finite numbers; else the first; None of none."""
    return next((f for f in found if f.made_here), found[0] if found else None)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All of a nested value, those of Detectron2's structures included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Instances):
        yield from tensors_in(value.get_fields())
    elif isinstance(getattr(value, "tensor", None), Tensor):  # Boxes, BitMasks, ImageList, ...
        yield value.tensor


def is_finite(value: Tensor) -> bool:
    """Whether all values are; a GPU is waited for."""
    return not value.is_floating_point() or bool(value.isfinite().all())


def described(
    what: str, name: str, value: Tensor, kind: str = "", *, made_here: bool = True
) -> NonFinite:
    """The finding of a tensor that is not finite."""
    good = value.detach()[value.isfinite()].double()
    low, high = (x.item() for x in good.aminmax()) if len(good) else (torch.nan, torch.nan)
    count = value.numel() - len(good)
    return NonFinite(what, name, kind, count, value.numel(), low, high, made_here)
