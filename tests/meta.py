"""Networks without memory."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """The meta device, where random numbers are not drawn.

    Of none of them anything could be seen, but for what they take: more than half of the time, as
    PyTorch finds out in Python what shapes they would have.
    """
    with (
        torch.device("meta"),
        patch.object(Tensor, "normal_", _as_it_is),
        patch.object(Tensor, "uniform_", _as_it_is),
    ):
        yield


def _as_it_is(tensor: Tensor, *_: object, **__: object) -> Tensor:
    assert tensor.is_meta
    return tensor
