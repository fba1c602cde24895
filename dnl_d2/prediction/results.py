"""What is predicted of a picture, with the pictures and figures that a person wants of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode, Instances
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from dnl_d2.visualization import class_colors, color_label

_OPACITY = 0.5
_TEXT, _GAP = 12, 6  # pixels, of the names of classes


@dataclass(frozen=True)
class Segmentation:
    """A label map; ``numpy.asarray`` gives it.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: ``(H, W)``, the class of every pixel.
        classes: their names.
        colors: an RGB triple per class; None for Detectron2's.
    """

    image: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    classes: Sequence[str]
    colors: Sequence[Sequence[int]] | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.labels, dtype=dtype)

    def draw(self) -> np.ndarray:
        """The picture with the classes' colours over it, ``(H, W, 3)`` uint8."""
        colored = color_label(self.labels, self._palette)
        mixed = (1 - _OPACITY) * self.image + _OPACITY * colored
        return mixed.round().astype(np.uint8)

    def side_by_side(self) -> np.ndarray:
        """The picture, beside it :meth:`draw`, and below names and colours of what is there."""
        pair = np.concatenate([self.image, self.draw()], axis=1)
        return np.concatenate([pair, _legend(self.legend(), pair.shape[1])])

    def legend(self) -> list[tuple[str, Sequence[int]]]:
        """Names and colours of the classes that are there, the most frequent first."""
        return [(name, self._palette[number]) for number, name in self._present()]

    def label_picture(self) -> Image.Image:
        """The label map as a picture: with a palette, or for over 256 classes in 16 bits."""
        if len(self.classes) > 256:
            return Image.fromarray(self.labels.astype(np.uint16))
        picture = Image.fromarray(self.labels.astype(np.uint8))
        picture.putpalette(np.asarray(self._palette, dtype=np.uint8).tobytes())
        return picture

    def summary(self) -> dict[str, Any]:
        """Size, and the share of each class that is there, the largest first."""
        counts = np.bincount(self.labels.ravel())
        shares: dict[str, float] = {}
        for number, name in self._present():
            shares[name] = shares.get(name, 0.0) + float(counts[number] / counts.sum())
        return {**_size(self.image), "shares": shares}

    def _present(self) -> list[tuple[int, str]]:
        """Numbers and names of the classes that are there, the most frequent first."""
        counts = np.bincount(self.labels.ravel())
        order = np.argsort(-counts, kind="stable")
        return [(int(number), self.classes[number]) for number in order if counts[number]]

    @property
    def _palette(self) -> Sequence[Sequence[int]]:
        return class_colors(len(self.classes), self.colors)


@dataclass(frozen=True)
class Detections:
    """Objects of a picture.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        instances: Detectron2's, in pixels of ``image``, on the CPU.
        classes: their names.
        metadata: of a dataset, for names of keypoints and colours.
    """

    image: np.ndarray = field(repr=False)
    instances: Instances
    classes: Sequence[str]
    metadata: Metadata

    def __len__(self) -> int:
        return len(self.instances)

    def draw(self) -> np.ndarray:
        """The picture with boxes, masks and keypoints over it, ``(H, W, 3)`` uint8."""
        from detectron2.utils.visualizer import Visualizer  # which imports OpenCV

        drawn = Visualizer(self.image, self.metadata).draw_instance_predictions(self.instances)
        height, width = self.image.shape[:2]
        return drawn.get_image()[:height, :width]

    def side_by_side(self) -> np.ndarray:
        """The picture, and beside it :meth:`draw`."""
        return np.concatenate([self.image, self.draw()], axis=1)

    def summary(self) -> dict[str, Any]:
        """Size and objects: class, score, box [x, y, width, height], and mask as run lengths."""
        found = self.instances
        boxes = BoxMode.convert(found.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        objects: list[dict[str, Any]] = [
            {"class": self.classes[number], "score": score, "bbox": box}
            for number, score, box in zip(
                found.pred_classes.tolist(), found.scores.tolist(), boxes.tolist(), strict=True
            )
        ]
        for name, values in (("masks", _masks(found)), ("keypoints", _keypoints(found))):
            for entry, value in zip(objects, values, strict=bool(values)):
                entry["segmentation" if name == "masks" else name] = value
        return {**_size(self.image), "objects": objects}


def _legend(entries: Sequence[tuple[str, Sequence[int]]], width: int) -> np.ndarray:
    """Names beside squares of their colours, ``(h, width, 3)``: as many as fit into a line each."""
    font = ImageFont.load_default(_TEXT)
    places: list[tuple[float, int]] = []
    x, y = float(_GAP), _GAP
    for name, _ in entries:
        needed = _TEXT + _GAP + font.getlength(name)
        if x > _GAP and x + needed > width:
            x, y = float(_GAP), y + _TEXT + _GAP
        places.append((x, y))
        x += needed + 2 * _GAP
    picture = Image.new("RGB", (width, y + _TEXT + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        square = (left, top, left + _TEXT, top + _TEXT)
        draw.rectangle(square, fill=tuple(color), outline="black")
        draw.text((left + _TEXT + _GAP, top - 2), name, fill="black", font=font)
    return np.asarray(picture)


def _size(image: np.ndarray) -> dict[str, int]:
    return {"height": image.shape[0], "width": image.shape[1]}


def _masks(found: Instances) -> list[dict]:
    if not found.has("pred_masks"):
        return []
    masks = np.asfortranarray(found.pred_masks.numpy().transpose(1, 2, 0).astype(np.uint8))
    return [{**runs, "counts": runs["counts"].decode()} for runs in coco_mask.encode(masks)]


def _keypoints(found: Instances) -> list[list[float]]:
    return found.pred_keypoints.flatten(1).tolist() if found.has("pred_keypoints") else []
