"""Crops whose classes are mixed, and resizing no more of a picture than its crop shows."""

from collections.abc import Callable

import numpy as np
from detectron2.data import transforms as T

from dnl_d2.data.opencv import cv2
from dnl_d2.data.resize import RandomResize, ResizeTransform, resized_part


class CategoryCrop(T.RandomCrop_CategoryAreaConstraint):
    """Crops where no class covers too much of the labelled pixels, or after ten tries anywhere.

    detectron2's stays with the tenth try, which has failed too; mmsegmentation draws once more.
    """

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        """Draws the crop for an (H, W[, C]) image and its (H, W) label map."""
        return self.chosen(sem_seg, lambda: self.crop_aug.get_transform(image))

    def chosen(self, sem_seg: np.ndarray, draw: Callable[[], T.Transform]) -> T.Transform:
        """The first of ten draws whose classes are mixed enough, or the eleventh.

        Args:
            sem_seg: (H, W) label map.
            draw: gives a transform that crops the label map, another one each time.
        """
        if self.single_category_max_area < 1.0:
            for _ in range(10):
                crop = draw()
                if self._is_mixed(crop.apply_segmentation(sem_seg)):
                    return crop
        return draw()

    def _is_mixed(self, sem_seg: np.ndarray) -> bool:
        labels, counts = _counted(sem_seg)
        counts = counts[labels != self.ignored_category]
        return len(counts) > 1 and counts.max() / counts.sum() < self.single_category_max_area


def _counted(sem_seg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a label map in order, and how often each occurs."""
    if sem_seg.dtype != np.uint8:
        return np.unique(sem_seg, return_counts=True)
    counts = np.bincount(sem_seg.ravel(), minlength=256)  # a quarter of the time of np.unique
    labels = counts.nonzero()[0]
    return labels, counts[labels]


class ResizedCropTransform(T.Transform):
    """A resize and then a crop, of which only the crop is computed.

    Args:
        resize: of the whole picture.
        crop: of the resized picture.
    """

    def __init__(self, resize: ResizeTransform, crop: T.CropTransform):
        super().__init__()
        self.resize, self.crop = resize, crop

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Interpolates an (H, W[, C]) image; ``interp``, a method of Pillow's, is not looked at."""
        return self._part(img, nearest=False)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Takes the nearest pixel of an (H, W) label map."""
        return self._part(segmentation, nearest=True)

    def _part(self, array: np.ndarray, *, nearest: bool) -> np.ndarray:
        rows = slice(self.crop.y0, self.crop.y0 + self.crop.h)
        columns = slice(self.crop.x0, self.crop.x0 + self.crop.w)
        size = self.resize.new_h, self.resize.new_w
        return resized_part(array, size, rows, columns, nearest=nearest)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Moves (x, y) points along."""
        return self.crop.apply_coords(self.resize.apply_coords(coords))

    def apply_polygons(self, polygons: list) -> list:
        """Moves polygons along and cuts them at the crop's border."""
        return self.crop.apply_polygons(self.resize.apply_polygons(polygons))


class ResizedCrop(T.Augmentation):
    """Resizes and crops as the two augmentations one after the other, from the same draws.

    Args:
        resize: draws the size of the whole picture.
        crop: draws what is cut out.
    """

    def __init__(self, resize: RandomResize, crop: CategoryCrop):
        super().__init__()
        self.resize, self.crop = resize, crop

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        """Draws both for an (H, W[, C]) image, whose pixels do not matter, and its label map."""
        resize = self.resize.get_transform(image)
        if isinstance(resize, T.NoOpTransform):
            return self.crop.get_transform(image, sem_seg)
        resized = np.broadcast_to(np.uint8(0), (resize.new_h, resize.new_w))  # only its shape
        draw = self.crop.crop_aug.get_transform
        return self.crop.chosen(sem_seg, lambda: ResizedCropTransform(resize, draw(resized)))


class HFlipTransform(T.HFlipTransform):
    """Mirrors images in memory: what reads a mirrored view of NumPy's is twenty times slower."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Mirrors an (H, W[, C]) image."""
        if cv2 is None or img.dtype != np.uint8:
            return super().apply_image(img)
        return cv2.flip(img, 1).reshape(img.shape)


class RandomFlip(T.RandomFlip):
    """detectron2's horizontal flip with :class:`HFlipTransform`."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws whether to mirror an (H, W[, C]) image."""
        flip = super().get_transform(image)
        return HFlipTransform(flip.width) if isinstance(flip, T.HFlipTransform) else flip
