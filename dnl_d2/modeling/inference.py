"""Sliding windows and averages over scales, for any function that predicts logits."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.layers.common import check_count
from dnl_d2.layers.functional import full_precision

# (N, C, H, W) images -> (N, K, H, W) logits.
Predict = Callable[[Tensor], Tensor]
PROGRESS_SECONDS = 10.0
_logger = logging.getLogger(__name__)


def sliding_window(
    images: Tensor,
    predict: Predict,
    *,
    window: Sequence[int],
    stride: Sequence[int],
    batch_size: int = 4,
    sum_on_cpu: bool = False,
) -> Tensor:
    """Predicts overlapping windows and averages the logits where they overlap.

    Windows start every ``stride`` pixels; the last one of each axis is pulled back to end with the
    image, so all of them have one size. An axis that is not longer than the window is not divided.
    Beside what ``predict`` needs for one batch, the memory is that of the result. An image that
    takes long says every ten seconds how far it is, through :mod:`logging`.

    Args:
        images: ``(N, C, H, W)``.
        predict: called with at most ``max(batch_size, N)`` crops at a time.
        window, stride: (height, width); published: 769 and 513, PASCAL Context 480 and 320.
        batch_size: crops at a time, which bounds the memory; it does not change the result.
        sum_on_cpu: keep sum and result in main memory, wherever the images are.

    Returns:
        ``(N, K, H, W)`` logits.

    Raises:
        UsageError: see :func:`check_window`.
    """
    check_window(window, stride, batch_size)
    height, width = (min(w, s) for w, s in zip(window, images.shape[-2:], strict=True))
    rows, columns = map(window_starts, images.shape[-2:], window, stride)
    corners = [(y, x) for y in rows for x in columns]
    store = torch.device("cpu") if sum_on_cpu else images.device
    count = torch.zeros(images.shape[-2:], device=store)
    together = max(batch_size // len(images), 1)
    last_said = time.monotonic()
    for first in range(0, len(corners), together):
        group = corners[first : first + together]
        crops = torch.cat([images[..., y : y + height, x : x + width] for y, x in group])
        (logits,) = full_precision(predict(crops))
        if first == 0:
            shape = (len(images), logits.shape[1], *images.shape[-2:])
            total = logits.new_zeros(shape, device=store)
        for (y, x), part in zip(group, logits.to(store).split(len(images)), strict=True):
            total[..., y : y + height, x : x + width] += part
            count[y : y + height, x : x + width] += 1
        if time.monotonic() - last_said >= PROGRESS_SECONDS:
            last_said = time.monotonic()
            _logger.info("sliding window: %d of %d", first + len(group), len(corners))
    return total.div_(count)


def average_probabilities(images: Iterable[Tensor], predict: Predict, *, flip: bool) -> Tensor:
    """The mean of the probabilities predicted for several versions of one picture.

    Args:
        images: ``(C, H, W)`` each, of any sizes.
        predict: ``(C, H, W)`` image -> ``(K, height, width)`` logits, of one size for all.
        flip: whether the mirror image of every version counts too.

    Returns:
        ``(K, height, width)`` probabilities, in at least fp32.
    """
    total, number = torch.zeros(()), 0
    for image in images:
        for mirrored in (False, True) if flip else (False,):
            logits = predict(image.flip(-1)).flip(-1) if mirrored else predict(image)
            total = full_precision(logits)[0].softmax(0).add_(total)
            number += 1
    return total.div_(number)


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows start on an axis of ``size`` positions."""
    last = max(size - window, 0)
    return [*range(0, last, stride), last]


def check_window(window: Sequence[int], stride: Sequence[int], batch_size: int) -> None:
    """Raises :class:`UsageError` for windows that cannot cover an image."""
    check_count(**{"batch size of sliding windows": batch_size})
    for name, pair in (("window", window), ("stride", stride)):
        if len(pair) != 2:
            raise UsageError(
                f"sliding {name} must be (height, width), got {tuple(pair)}; "
                "give both window and stride, or neither for the whole image at once"
            )
        check_count(**{f"sliding {name} height": pair[0], f"sliding {name} width": pair[1]})
    if any(s > w for s, w in zip(stride, window, strict=True)):
        raise UsageError(
            f"sliding windows of {tuple(window)} at stride {tuple(stride)} leave gaps: "
            "a stride may not exceed its window"
        )
