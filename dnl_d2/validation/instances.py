"""A look through a dataset in COCO's or LVIS's form before a detector reads it."""

import logging
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from dnl_d2.errors import UsageError
from dnl_d2.validation.coco_files import (
    check_images,
    class_names,
    entries_by_id,
    read_coco_form,
    require_keys,
)
from dnl_d2.validation.instance_masks import check_mask
from dnl_d2.validation.keypoints import KeypointTask, check_keypoint_count

_logger = logging.getLogger(__name__)

# What can be odd about an object, with what becomes of it in training and in evaluation.
_CROWD = "crowd regions"
_FLAT = "boxes without area"
_OUTSIDE = "boxes outside of their image"
_THIN = "objects whose polygons have no three points"
_EVALUATED = {
    _CROWD: "detections there do not count",
    _FLAT: "count as missed",
    _OUTSIDE: "count as missed",
    _THIN: "count as missed by masks",
}


@dataclass(frozen=True)
class InstanceTask:
    """What a detector reads, for :func:`check_coco_dataset`.

    Args:
        num_classes: classes it predicts; None for those without classes.
        classes_key: the config key of ``num_classes``, for messages.
        masks: whether it learns masks.
        masks_key: the config key of ``masks``.
        mask_format: ``polygon`` or ``bitmask``.
        format_key: the config key of ``mask_format``.
        keypoints_key: the config key by which it learns keypoints; None if it learns none.
        keypoints: what it knows of them; None if it learns none.
        keeps_empty: whether it trains with images without an object.
    """

    num_classes: int | None
    classes_key: str
    masks: bool
    masks_key: str
    mask_format: str
    format_key: str
    keypoints_key: str | None = None
    keypoints: KeypointTask | None = None
    keeps_empty: bool = False


def check_coco_dataset(
    name: str,
    json_file: str,
    image_root: str | None,
    *,
    task: InstanceTask,
    test: bool,
    max_image_files: int,
    image_key: str = "file_name",
) -> list[str]:
    """Fails now, in one line, on what would fail or be wrong later; logs what is left out.

    The file is read once; Detectron2's loader reads it again. The sizes of images are compared by
    their headers, up to a number, evenly spaced.

    Args:
        name: the dataset, for messages.
        json_file: annotations.
        image_root: folder of the images; None: they are not looked for.
        task: what the annotations have to fit.
        test: whether they are for evaluation, for which there may be none.
        max_image_files: how many headers to read; 0 for none.
        image_key: where an image's entry has its path; LVIS has ``coco_url``.

    Returns:
        The names of the categories in the order of their ids.

    Raises:
        UsageError: the file is missing or of another form, refers to what it does not have, or does
            not fit the task; images are missing or of another size.
    """
    try:
        content = read_coco_form(json_file)
        images = entries_by_id(content, "images", ("id", image_key, "height", "width"))
        classes = entries_by_id(content, "categories", ("id", "name"))
        names = class_names(classes)
        check_class_count(len(classes), "the file", task)
        if image_root is not None:
            entries = list(images.values())
            check_images(entries, image_root, key=image_key, max_files=max_image_files)
        objects = content.get("annotations")
        if not test and objects is None:
            raise UsageError("there are no 'annotations' to train with")
        if not objects and test:
            _logger.info("Dataset %s has no annotations: predictions are only written", name)
            return names
        checker = _Objects(images, classes, task, test=test)
        for entry in objects or ():
            checker.add(entry)
        twice = checker.repeated_id
        if twice is not None and "minival" not in json_file:  # COCO's of 2014, as Detectron2 does
            raise UsageError(f"two annotations have the id {twice!r}: number them anew")
        _logger.info("Dataset %s: %s", name, checker.summary())
        return names
    except UsageError as error:
        raise UsageError(f"dataset {name}: {json_file}: {error}") from error


def check_class_count(count: int, what: str, task: InstanceTask) -> None:
    """Raises a :class:`UsageError` if ``what`` has another number of classes than the model."""
    if task.num_classes not in (None, count):
        raise UsageError(
            f"{what} has {count} categories, but the model predicts {task.num_classes}: set "
            f"{task.classes_key} to {count}"
        )


class _Objects:
    """Checks annotations one by one, and counts those that are left out."""

    def __init__(self, images: Mapping, classes: Mapping, task: InstanceTask, *, test: bool):
        self._images, self._classes, self._task, self._test = images, classes, task, test
        self._keys = ("id", "image_id", "category_id", "bbox", *(("area",) if test else ()))
        self.repeated_id: Any = None
        self._ids: set = set()
        self._odd: Counter[str] = Counter()
        self._total = self._usable = 0
        self._used_images: set = set()
        self._has_keypoints = False

    def add(self, entry: Any) -> None:
        """Counts one; raises a UsageError if it is wrong."""
        require_keys(entry, "an annotation", ("id",))
        what = f"annotation {entry['id']}"
        require_keys(entry, what, self._keys)
        if entry["id"] in self._ids:
            self.repeated_id = entry["id"]
        self._ids.add(entry["id"])
        for key, known in (("image_id", self._images), ("category_id", self._classes)):
            value = entry[key]  # unhashable where it is a list or a mapping
            if not isinstance(value, Hashable) or value not in known:
                kind = key.removesuffix("_id")
                raise UsageError(f"{what} has the {key} {value!r}: there is no such {kind}")
        if entry.get("ignore"):
            raise UsageError(f"{what} has 'ignore', which Detectron2 refuses: use 'iscrowd'")
        self._total += 1
        odd = self._kind(entry, what)
        points = entry.get("keypoints")
        self._has_keypoints |= isinstance(points, list) and any(points[2::3])
        if isinstance(points, list) and points and self._task.keypoints:
            check_keypoint_count(len(points) // 3, what, self._task.keypoints)
        if odd is None:
            self._usable += 1
        else:
            self._odd[odd] += 1
        if odd not in (_CROWD, _THIN):  # by which Detectron2 chooses images
            self._used_images.add(entry["image_id"])

    def summary(self) -> str:
        """What was counted, in a line; raises a UsageError if nothing is left."""
        if not self._usable:
            odd = ", ".join(f"{kind}: {n}" for kind, n in self._odd.items()) or "there is none"
            raise UsageError(f"no annotation can be used ({odd}): annotate an object")
        if self._task.keypoints_key and not self._has_keypoints:
            raise UsageError(
                "no annotation has a visible point in 'keypoints', which the model learns: set "
                f"{self._task.keypoints_key} to false, or add keypoints"
            )
        parts = [
            f"{len(self._images)} images, {self._total} annotations, {len(self._classes)} classes"
        ]
        for kind, count in self._odd.items():
            fate = _EVALUATED[kind] if self._test else "left out"
            parts.append(f"{kind}: {count} ({fate})")
        empty = len(self._images) - len(self._used_images)
        if empty:
            left = "kept as background" if self._task.keeps_empty else "left out"
            fate = "evaluated" if self._test else left
            parts.append(f"images without an object: {empty} ({fate})")
        return "; ".join(parts)

    def _kind(self, entry: Mapping, what: str) -> str | None:
        box = entry["bbox"]
        if not _is_box(box):
            raise UsageError(
                f"{what} has the bbox {box!r}: it is [x, y, width, height] in pixels, none of the "
                "last two negative"
            )
        image, shape = self._images[entry["image_id"]], entry.get("segmentation")
        if shape:
            check_mask(shape, image, what)
        if entry.get("iscrowd", 0):
            return _CROWD
        if self._task.masks:
            self._fits_model(shape, what)
        if isinstance(shape, list) and shape and not any(map(_is_polygon, shape)):
            return _THIN
        x, y, width, height = box
        if not (width and height):
            return _FLAT
        inside = x < image["width"] and y < image["height"] and x + width > 0 and y + height > 0
        return None if inside else _OUTSIDE

    def _fits_model(self, shape: Any, what: str) -> None:
        task = self._task
        if not shape:
            raise UsageError(
                f"{what} has no mask ('segmentation'), which the model learns: set "
                f"{task.masks_key} to false, or add masks"
            )
        if not self._test and task.mask_format == "polygon" and isinstance(shape, Mapping):
            raise UsageError(
                f"{what} has its mask as run lengths, not polygons: set {task.format_key} to "
                "bitmask"
            )


def _is_box(box: Any) -> bool:
    try:
        x, y, width, height = box
        return width >= 0 and height >= 0 and math.isfinite(x + y + width + height)
    except (TypeError, ValueError):
        return False


def _is_polygon(points: Any) -> bool:
    """As Detectron2's loader judges."""
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
