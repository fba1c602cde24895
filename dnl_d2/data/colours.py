"""Distortion of colours, as mmsegmentation and PaddleSeg do it."""

import random
from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from torchvision.transforms import v2

from dnl_d2.data.opencv import cv2, require_opencv
from dnl_d2.errors import UsageError

_VALUES = np.arange(256, dtype=np.float32)
_HSV = {
    "RGB": ("COLOR_RGB2HSV", "COLOR_HSV2RGB"),
    "BGR": ("COLOR_BGR2HSV", "COLOR_HSV2BGR"),
}


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue; labels stay as they are.

    The draws and pixels of detectron2's SSD distortion, each step by a table of the 256 values of a
    channel. It draws from Python's ``random``: seeded by ``seed_all_rng`` and anew in every loader
    worker. The same pixels as mmsegmentation's, whose hue never shifts by the full 18 upwards, only
    downwards.
    """

    def __init__(
        self,
        image_format: str = "RGB",
        *,
        brightness: int = 32,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: int = 18,
    ) -> None:
        """
        Args:
            image_format: channel order, "RGB" or "BGR".
            brightness: largest shift of the grey values.
            contrast: range of the factor on all channels.
            saturation: range of the factor on the saturation.
            hue: largest shift of the hue, of 180.

        Raises:
            UsageError: another image format, or OpenCV is missing.
        """
        super().__init__()
        require_opencv()
        if image_format not in ("RGB", "BGR"):
            raise UsageError(
                f"photometric distortion needs image format RGB or BGR, not {image_format}: "
                "change INPUT.FORMAT or switch INPUT.COLOR_AUG_SSD off"
            )
        self.image_format = image_format
        self.brightness = brightness
        self.contrast = tuple(contrast)
        self.saturation = tuple(saturation)
        self.hue = hue

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the distortion; its values are drawn when it is applied to the image."""
        return T.ColorTransform(self._distorted)

    def _distorted(self, image: np.ndarray) -> np.ndarray:
        """Distorts an (H, W, 3) uint8 image; contrast comes before the others or after them."""
        if random.randrange(2):
            shift = random.uniform(-self.brightness, self.brightness)
            image = cv2.LUT(image, _clipped(_VALUES + shift))
        colours = [self._scale_saturation, self._shift_hue]
        contrast_first = random.randrange(2)
        steps = [self._scale, *colours] if contrast_first else [*colours, self._scale]
        for step in steps:
            if random.randrange(2):
                image = step(image)
        return image

    def _scale(self, image: np.ndarray) -> np.ndarray:
        return cv2.LUT(image, _clipped(_VALUES * random.uniform(*self.contrast)))

    def _scale_saturation(self, image: np.ndarray) -> np.ndarray:
        return self._mapped(image, 1, _clipped(_VALUES * random.uniform(*self.saturation)))

    def _shift_hue(self, image: np.ndarray) -> np.ndarray:
        shifted = np.arange(256) + random.randint(-self.hue, self.hue)
        return self._mapped(image, 0, (shifted % 180).astype(np.uint8))

    def _mapped(self, image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
        """Maps hue (0) or saturation (1)."""
        to_hsv, back = _HSV[self.image_format]
        hsv = cv2.cvtColor(image, getattr(cv2, to_hsv))
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
        return cv2.cvtColor(hsv, getattr(cv2, back))


class ColorJitter(T.Augmentation):
    """PaddleSeg's distortion: brightness, contrast, saturation and hue, each every other time.

    Args:
        amount: the first three are multiplied by up to 1 - amount and 1 + amount.
        hue: largest shift of the hue, of 256.
        image_format: channel order; only "RGB".

    Raises:
        UsageError: an amount outside [0, 1], a hue outside [0, 128] or another image format.
    """

    def __init__(self, amount: float, *, hue: int = 18, image_format: str = "RGB") -> None:
        super().__init__()
        if image_format != "RGB":
            raise UsageError(
                f"colour jitter needs image format RGB, not {image_format}: change INPUT.FORMAT or "
                "set INPUT.COLOR_JITTER 0"
            )
        if not 0 <= amount <= 1 or not 0 <= hue <= 128:
            raise UsageError(
                f"colour jitter {amount} (hue {hue}): use 0 to 1 (INPUT.COLOR_JITTER), hue 0 to 128"
            )
        self.amount, self.hue = float(amount), hue
        ranges = dict.fromkeys(("brightness", "contrast", "saturation"), self.amount)
        steps = [
            v2.RandomApply([v2.ColorJitter(**{name: extent})], p=0.5)
            for name, extent in (ranges | {"hue": hue / 256}).items()
        ]
        self._distort = v2.RandomOrder(steps)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Returns the distortion; its values are drawn when it is applied to the image."""
        return T.PILColorTransform(self._distort)


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)
