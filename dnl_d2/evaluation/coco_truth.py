"""What predictions are compared with, as pycocotools needs it."""

import contextlib
import io
import math
from collections.abc import Mapping

import msgspec
from msgspec import UNSET
from pycocotools.coco import COCO

from dnl_d2.data.datasets.coco_json import FLAT, OUTSIDE, THIN, object_kind
from dnl_d2.data.datasets.coco_masks import RunLengths, mask_area, whole_polygons
from dnl_d2.data.datasets.coco_schema import CocoAnnotation, CocoForm, CocoImage


def make_truth(form: CocoForm) -> COCO:
    """Objects in pycocotools' form, from a file as ``read_coco_json`` gives it, which is changed.

    pycocotools takes number 0 for no object, so annotations are numbered from 1 on. As in training,
    objects whose box has no area or is outside of its image do not count; where no polygon has
    three points, detections in the box do not count either. A missing area is that of the mask, or
    without one of the box; an object without a mask has an empty one.
    """
    images = {image.id: image for image in form.images}
    kept = []
    for entry in form.annotations or ():
        image = images[entry.image_id]
        kind = object_kind(entry, image)
        if kind in (FLAT, OUTSIDE):
            continue
        if kind == THIN:
            entry.iscrowd = 1
            x, y, width, height = entry.bbox
            entry.segmentation = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        kept.append(entry)
        entry.id = len(kept)
        _complete(entry, image)
    _complete_keypoints(kept)
    truth = COCO()
    truth.dataset = msgspec.to_builtins(
        {"images": form.images, "categories": form.categories, "annotations": kept}
    )
    for annotation in truth.dataset["annotations"]:
        annotation["bbox"] = list(annotation["bbox"])  # pycocotools bears no tuples
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def source_ids(entries: list) -> Mapping[int, int | str]:
    """Ids in the user's file of those images or categories that have another one here."""
    return {entry.id: entry.source_id for entry in entries if entry.source_id is not None}


def _complete(entry: CocoAnnotation, image: CocoImage) -> None:
    entry.iscrowd = int(entry.iscrowd is not UNSET and bool(entry.iscrowd))
    mask = entry.segmentation
    if entry.area is None or not (math.isfinite(entry.area) and entry.area > 0):
        width, height = entry.bbox[2:]
        entry.area = mask_area(mask, image.height, image.width) if mask else width * height
    if isinstance(mask, list):
        entry.segmentation = whole_polygons(mask)
    if not entry.segmentation:
        size = (image.height, image.width)
        entry.segmentation = RunLengths(size=size, counts=[size[0] * size[1]])


def _complete_keypoints(entries: list[CocoAnnotation]) -> None:
    """All have keypoints if one has: those without are not compared.

    Where some have more than others keypoints cannot be evaluated, and stay as they are.
    """
    lengths = {len(entry.keypoints or ()) for entry in entries} - {0}
    if len(lengths) != 1:
        return
    unmarked = [0.0] * lengths.pop()
    for entry in entries:
        entry.keypoints = entry.keypoints or unmarked
        if entry.num_keypoints is None:
            entry.num_keypoints = sum(seen > 0 for seen in entry.keypoints[2::3])
