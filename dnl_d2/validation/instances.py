"""A look through a dataset in COCO's or LVIS's form before a detector reads it."""

import logging
from collections import Counter
from dataclasses import dataclass

from dnl_d2.data.datasets.coco_json import (
    CROWD,
    FLAT,
    OUTSIDE,
    THIN,
    object_kind,
    read_coco_json,
    require_borne,
)
from dnl_d2.data.datasets.coco_masks import RunLengths
from dnl_d2.data.datasets.coco_schema import CocoAnnotation, CocoForm, CocoImage, Id
from dnl_d2.data.datasets.keypoints import require_equal_keypoints
from dnl_d2.data.listing import count_and_name
from dnl_d2.errors import UsageError
from dnl_d2.validation.coco_boxes import judge_boxes
from dnl_d2.validation.coco_images import check_images
from dnl_d2.validation.keypoints import KeypointTask, check_keypoint_count

_logger = logging.getLogger(__name__)
# What helps where all objects are of a kind that is left out.
_HINTS = {
    CROWD: "set their 'iscrowd' to 0",
    THIN: "write polygons of three points or more, or take 'segmentation' off for boxes alone",
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
    own_loader: bool = True,
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
        own_loader: whether it is this library that loads the dataset, which bears more.

    Returns:
        The names of the categories in the order of their ids.

    Raises:
        UsageError: the file is missing or of another form, refers to what it does not have, or does
            not fit the task; images are missing or of another size.
    """
    try:
        form, odd = read_coco_json(json_file, image_key=image_key)
        if not own_loader:
            require_borne(odd, json_file)
        names = [str(category.name) for category in sorted(form.categories, key=lambda c: c.id)]
        check_class_count(len(names), f"the file{_unused(form, task)}", task)
        if image_root is not None:
            check_images(form.images, image_root, key=image_key, max_files=max_image_files)
        if not test and form.annotations is None:
            raise UsageError("there are no 'annotations' to train with")
        if not form.annotations and test:
            _logger.info("Dataset %s has no annotations: predictions are only written", name)
            return names
        objects = _Objects(form, task, test=test)
        doubts = [*_repeated_images(form, image_key), *judge_boxes(form), *objects.mostly_crowds()]
        for doubt in doubts:
            _logger.warning("Dataset %s: %s: %s", name, json_file, doubt)
        _logger.info("Dataset %s: %s", name, objects.summary())
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
    """Checks that annotations suit a task, and counts those that are left out."""

    def __init__(self, form: CocoForm, task: InstanceTask, *, test: bool):
        self._form, self._task, self._test = form, task, test
        self._odd: Counter[str] = Counter()
        self._usable = 0
        self._used_images: set[Id] = set()
        self._has_keypoints = False
        if task.keypoints_key:
            require_equal_keypoints(
                (f"annotation {entry.id}", entry.keypoints) for entry in form.annotations or ()
            )
        images = {image.id: image for image in form.images}
        for entry in form.annotations or ():
            self._add(entry, images[entry.image_id])

    def summary(self) -> str:
        """What was counted, in a line; raises a UsageError if nothing is left."""
        form, task = self._form, self._task
        total = len(form.annotations or ())
        if not self._usable:
            odd = ", ".join(f"{kind}: {n}" for kind, n in self._odd.items()) or "there is none"
            hint = _HINTS.get(next(iter(self._odd), "") if len(self._odd) == 1 else "", "")
            raise UsageError(f"no annotation can be used ({odd}): {hint or 'annotate an object'}")
        if task.keypoints_key and not self._has_keypoints:
            raise UsageError(
                "no annotation has a visible point in 'keypoints', which the model learns: set "
                f"{task.keypoints_key} to false, or add keypoints"
            )
        parts = [f"{len(form.images)} images, {total} annotations, {len(form.categories)} classes"]
        for kind, count in self._odd.items():
            crowd = self._test and kind == CROWD
            fate = "detections there do not count" if crowd else "left out"
            parts.append(f"{kind}: {count} ({fate})")
        empty = len(form.images) - len(self._used_images)
        if empty:
            left = "kept as background" if task.keeps_empty else "left out"
            parts.append(
                f"images without an object: {empty} ({'evaluated' if self._test else left})"
            )
        return "; ".join(parts)

    def mostly_crowds(self) -> list[str]:
        """A line if groups are more than objects, as where a tool has 1 for every brushed mask."""
        crowds = self._odd[CROWD]
        if crowds <= self._usable:
            return []
        return [
            f"'iscrowd' is 1 for {crowds} of {len(self._form.annotations or ())} annotations, "
            "which are neither learned nor evaluated: set it to 0 for single objects"
        ]

    def _add(self, entry: CocoAnnotation, image: CocoImage) -> None:
        kind = object_kind(entry, image)
        if entry.keypoints:
            self._has_keypoints |= any(entry.keypoints[2::3])
            if self._task.keypoints:
                what = f"annotation {entry.id}"
                check_keypoint_count(len(entry.keypoints) // 3, what, self._task.keypoints)
        if kind not in (CROWD, FLAT, OUTSIDE) and self._task.masks:
            self._require_mask(entry)
        if kind is None:
            self._usable += 1
        else:
            self._odd[kind] += 1
        if kind not in (CROWD, THIN):  # by which Detectron2 chooses images
            self._used_images.add(image.id)

    def _require_mask(self, entry: CocoAnnotation) -> None:
        task = self._task
        if entry.segmentation is None:
            raise UsageError(
                f"annotation {entry.id} has no mask ('segmentation'), which the model learns: set "
                f"{task.masks_key} to false, or add masks"
            )
        runs = isinstance(entry.segmentation, RunLengths)
        if runs and task.mask_format == "polygon" and not self._test:
            raise UsageError(
                f"annotation {entry.id} has its mask as run lengths, not polygons: set "
                f"{task.format_key} to bitmask"
            )


def _unused(form: CocoForm, task: InstanceTask) -> str:
    """Names categories without an object where the model has as many classes as there are others.

    Some tools write a category for the group of all others.
    """
    used = {entry.category_id for entry in form.annotations or ()}
    unused = [str(category.name) for category in form.categories if category.id not in used]
    if not used or not unused or task.num_classes != len(used):
        return ""
    return f" (take {', '.join(unused)}, without an object, off if it is a group of the others)"


def _repeated_images(form: CocoForm, key: str) -> list[str]:
    counts = Counter(getattr(image, key) for image in form.images)
    twice = [name for name, count in counts.items() if count > 1]
    if not twice:
        return []
    return [
        count_and_name(twice, len(counts), "images have several entries")
        + ": in each the objects of the others count as background, give them one entry"
    ]
