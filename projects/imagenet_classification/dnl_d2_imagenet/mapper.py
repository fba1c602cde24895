"""From a record to what a classifier reads: decoding, augmentation, crops."""

import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from dnl_d2.data import to_array
from dnl_d2.errors import UsageError

_log = logging.getLogger(f"dnl_d2.{__name__}")  # a run logs what is under dnl_d2


class ClassificationMapper:
    """Reads a picture and crops it to a size, RGB.

    In training a random part of it (arXiv 1409.4842), mirrored half of the time, its colours
    jittered if asked for; otherwise its middle. A picture that cannot be read is named in a
    warning. In training another one is taken; in evaluation it has no ``image``, for which the
    model has no favourite class: it counts as not recognised, and no figure is better for it. One
    whose class is not known either is left out of the figures, and named.

    Args:
        is_train: whether it is for training.
        size: of the crop, in pixels.
        resize: of the shorter side before the middle is cropped.
        scale: of the random part, as a share of the area.
        jitter: of brightness, contrast and saturation; 0 for none.
        most_broken: pictures that each process bears, however often it meets them; with one more
            the run ends.

    Raises:
        UsageError: the middle would be larger than the resized picture.
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
        self._most_broken = most_broken
        self._broken: set[str] = set()
        if is_train:
            steps: list[Any] = [v2.RandomResizedCrop(size, tuple(scale), antialias=True)]
            steps += [v2.RandomHorizontalFlip()]
            steps += [v2.ColorJitter(jitter, jitter, jitter)] if jitter else []
        else:
            if resize < size:
                raise UsageError(
                    f"a middle of {size} pixels would have black borders in pictures resized to "
                    f"{resize}: set resize (dataloader.test.mapper.resize) to {size} or more"
                )
            steps = [v2.Resize(resize, antialias=True), v2.CenterCrop(size)]
        self.transform = v2.Compose(steps)

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Maps a record.

        Returns:
            The record with ``image``, ``(3, size, size)`` uint8. If it cannot be read: in training
            None, in place of which the loader takes another; in evaluation the record alone, or
            None without a class, which is left out.

        Raises:
            UsageError: too many pictures cannot be read.
        """
        rest = {key: value for key, value in record.items() if key != "encoded"}
        try:
            picture = decode(record)
        except UsageError as error:
            counts = not self.is_train and "category_id" in record
            self._bear(error, record["file_name"], counts)
            return rest if counts else None
        pixels = np.asarray(self.transform(picture)).transpose(2, 0, 1)
        return {**rest, "image": torch.from_numpy(np.ascontiguousarray(pixels))}

    def _bear(self, error: UsageError, name: str, counts: bool) -> None:
        if name in self._broken:
            return
        self._broken.add(name)
        if len(self._broken) > self._most_broken:
            raise UsageError(f"{error}; too many such: mend the dataset") from error
        without = "another one is taken" if self.is_train else "it is left out, having no class"
        _log.warning(f"{error}; {'it counts as not recognised' if counts else without}")


def decode(record: dict[str, Any]) -> Image.Image:
    """The picture of a record, upright and RGB, 8 bits per channel.

    Raises:
        UsageError: it cannot be read.
    """
    name = record["file_name"]
    if "broken" in record:
        raise UsageError(f"sample {name} cannot be used ({record['broken']})")
    source = io.BytesIO(record["encoded"]) if "encoded" in record else name
    try:
        with Image.open(source) as picture:
            return Image.fromarray(to_array(ImageOps.exif_transpose(picture), "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is no picture" if "identify" in str(error) else " ".join(str(error).split())
        raise UsageError(f"image {name} cannot be read ({reason})") from error
