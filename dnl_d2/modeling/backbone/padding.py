"""Where a batch of images is padding: what a context block must not look at.

Detectron2's models put images of different sizes into one tensor, each in the upper left corner and
zeros around it, and hand a backbone that tensor alone. So the padding is found there: the last rows
and columns in which every channel is exactly zero. Once a mean that is no whole number,
such as ImageNet's, is subtracted, no 8-bit pixel is zero.
"""

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)


def content_sizes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths of the images in a batch, its padding left out.

    Args:
        images: ``(N, C, H, W)``, normalised, then padded with zeros below and on the right.

    Returns:
        Two integer tensors ``(N,)``; an image of zeros alone has the size of the batch.
    """
    content = (images != 0).any(1)
    return _extent(content.any(2)), _extent(content.any(1))


def mask_only_visible_padding(
    model: nn.Module, key: str, pixel_mean: Iterable[float] | None = None
) -> None:
    """Stops masking padding, with a warning, if pixels of an image may look like it.

    Args:
        model: with a :class:`~dnl_d2.modeling.backbone.ContextResNet` somewhere in it, or without.
        key: the config key of the mean, for the warning.
        pixel_mean: the mean by channel; default the model's ``pixel_mean``, if it has one.
    """
    mean = getattr(model, "pixel_mean", None) if pixel_mean is None else pixel_mean
    masking = [m for m in model.modules() if getattr(m, "masks_padding", False)]
    if mean is None or not masking or any(float(m) != round(float(m)) for m in mean):
        return
    for backbone in masking:
        backbone.mask_padding = False  # type: ignore[assignment]
    _log.warning(
        f"{key} has whole numbers only, so that pixels of that colour look like padding: padding "
        "takes part in the context blocks. Add 0.5 to one to keep it out"
    )


def padding_mask(sizes: Sequence[Tensor], size: Sequence[int], stride: int) -> Tensor:
    """Boolean ``(N, *size)``, True where a position of a feature map stands for padding.

    Position i stands for pixel i * stride, the middle of what a convolution with that stride sees.

    Args:
        sizes: see :func:`content_sizes`.
        size: of the feature map.
        stride: of the feature map, in pixels.
    """
    rows, columns = (
        torch.arange(length, device=extent.device) * stride >= extent[:, None]
        for length, extent in zip(size, sizes, strict=True)
    )
    return rows[:, :, None] | columns[:, None, :]


def _extent(there: Tensor) -> Tensor:
    """``(N, L)`` -> one more than the last position that is true, or L where none is."""
    length = there.shape[1]
    last = (there * torch.arange(1, length + 1, device=there.device)).amax(1)
    return torch.where(last == 0, length, last)
