"""Adapting a network's first convolution to how images reach the model it is loaded into."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dnl_d2.checkpoint.describe import openmmlab_meta
from dnl_d2.checkpoint.keymap import State
from dnl_d2.checkpoint.source import InputFormat, Source
from dnl_d2.errors import UsageError, shortened

FIRST_CONVOLUTIONS = (
    "backbone.stem.conv1.weight",
    "backbone.bottom_up.stem.conv1.weight",
)
_MEAN_TOLERANCE = 0.5  # grey levels: code bases round 123.675 differently
_STD_TOLERANCE = 1e-3  # relative


def adapt_input(
    state: State,
    published: InputFormat,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: str | None = None,
) -> tuple[dict[str, Tensor], str, bool]:
    """Makes the first convolution read what the model feeds it; exact for another order or std.

    The input channels are swapped for BGR against RGB and scaled by std_model / std_published. A
    different mean has no such remedy, because of the zero padding at the border.

    Args:
        state: weights with our names; not changed.
        published: how the published model was fed.
        mean, std: of the model, by channel, on the scale of 0 to 255.
        channel_order: ``RGB`` or ``BGR`` as the model is fed; None to tell it from ``mean``.

    Returns:
        The weights; what was done, or the keys to set where nothing can be done (empty for
        neither); whether nothing can be done.
    """
    first = next((key for key in FIRST_CONVOLUTIONS if key in state), None)
    if first is None or state[first].shape[1] != 3 or len(mean) != 3:
        return dict(state), "", False
    same = _close(mean, published.mean)
    if channel_order is None:
        swap = not same and _close(mean, published.mean[::-1])
    else:
        swap = channel_order != published.channel_order
    wanted_mean = published.mean[::-1] if swap else published.mean
    wanted_std = published.std[::-1] if swap else published.std
    if not _close(mean, wanted_mean):
        return dict(state), _different_mean(published, mean), True
    scale = torch.tensor([own / other for own, other in zip(std, wanted_std, strict=True)])
    done = []
    weight = state[first]
    if swap:
        weight = weight.flip(1)
        done.append(f"its input channels swapped (published as {published.channel_order})")
    if ((scale - 1).abs() > _STD_TOLERANCE).any():
        weight = weight * scale.to(weight).view(1, 3, *[1] * (weight.dim() - 2))
        done.append(f"scaled for pixels divided by {_numbers(std)}, not {_numbers(wanted_std)}")
    said = f"first convolution: {' and '.join(done)}" if done else ""
    return {**state, first: weight}, said, False


def published_format(rest: Mapping[str, Any], source: Source | None = None) -> InputFormat | None:
    """How a file's network was fed: as the file itself says, else as its code base does.

    Args:
        rest: what the file holds beside its weights.
        source: the code base; None for a file of our own.
    """
    note = rest.get("input_format")  # of a converted file
    if isinstance(note, Mapping):
        try:
            order, mean, std = (note[key] for key in ("channel_order", "mean", "std"))
            return InputFormat(_text(order), _three(mean), _three(std))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"the file's note on its input format is wrong ({shortened(repr(error), 100)})"
            ) from error
    return openmmlab_meta.input_format(rest) or (source.input_format if source else None)


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= _MEAN_TOLERANCE for a, b in zip(one, other, strict=True))


def _different_mean(published: InputFormat, mean: Sequence[float]) -> str:
    return (
        f"INPUT.FORMAT (LazyConfig: the mappers' image_format) {published.channel_order}, "
        f"MODEL.PIXEL_MEAN (LazyConfig: pixel_mean) {_numbers(published.mean)}, now "
        f"{_numbers(mean)}, MODEL.PIXEL_STD (LazyConfig: pixel_std) {_numbers(published.std)}"
    )


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"


def _three(numbers: Iterable[Any]) -> tuple[float, float, float]:
    first, second, third = map(float, numbers)
    return first, second, third


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the channel order is a {type(value).__name__}")
    return value
