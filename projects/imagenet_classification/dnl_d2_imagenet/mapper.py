"""From a record to what a classifier reads: decoding, augmentation, crops."""

import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from dnl_d2.errors import UsageError

_log = logging.getLogger(f"dnl_d2.{__name__}")  # a run logs what is under dnl_d2


class ClassificationMapper:
    """Reads a picture and crops it to a size, RGB.

    In training a random part of it (arXiv 1409.4842), mirrored half of the time, its colours
    jittered if asked for; otherwise its middle. A training picture that cannot be read is left out
    with a warning, and after ``most_broken`` of them the run ends; in evaluation the first one
    ends it, since figures without it would be others.

    Args:
        is_train: whether it is for training.
        size: of the crop, in pixels.
        resize: of the shorter side before the middle is cropped.
        scale: of the random part, as a share of the area.
        jitter: of brightness, contrast and saturation; 0 for none.
        most_broken: pictures that each process may leave out.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        size: int = 224,
        resize: int = 256,
        scale: Sequence[float] = (0.08, 1.0),
        jitter: float = 0.0,
        most_broken: int = 100,
    ):
        self.is_train = is_train
        self._left = most_broken
        if is_train:
            steps: list[Any] = [v2.RandomResizedCrop(size, tuple(scale), antialias=True)]
            steps += [v2.RandomHorizontalFlip()]
            steps += [v2.ColorJitter(jitter, jitter, jitter)] if jitter else []
        else:
            steps = [v2.Resize(resize, antialias=True), v2.CenterCrop(size)]
        self.transform = v2.Compose(steps)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Maps a record.

        Returns:
            The record with ``image``, ``(3, size, size)`` uint8; None of a training picture that
            cannot be read, in place of which the loader takes another.

        Raises:
            UsageError: a picture cannot be read.
        """
        try:
            picture = decode(record)
        except UsageError as error:
            self._left -= 1
            if not self.is_train or self._left < 0:
                more = "; too many of them" if self.is_train else ""
                raise UsageError(f"{error}{more}: replace the file or take it off") from error
            _log.warning(f"{error}: left out")
            return None
        pixels = np.asarray(self.transform(picture)).transpose(2, 0, 1)
        record = {key: value for key, value in record.items() if key != "encoded"}
        return {**record, "image": torch.from_numpy(np.ascontiguousarray(pixels))}


def decode(record: dict[str, Any]) -> Image.Image:
    """The picture of a record, upright and RGB.

    Raises:
        UsageError: it cannot be read.
    """
    name = record["file_name"]
    if "broken" in record:
        raise UsageError(f"sample {name} cannot be used ({record['broken']})")
    source = io.BytesIO(record["encoded"]) if "encoded" in record else name
    try:
        with Image.open(source) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is no picture" if "identify" in str(error) else " ".join(str(error).split())
        raise UsageError(f"image {name} cannot be read ({reason})") from error
