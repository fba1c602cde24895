"""Whether boxes are [x, y, width, height], as COCO's are, or pairs of corners."""

from collections.abc import Mapping

from dnl_d2.data.datasets.coco_json import object_kind
from dnl_d2.data.datasets.coco_masks import RunLengths
from dnl_d2.data.datasets.coco_schema import CocoAnnotation, CocoForm, CocoImage, Id
from dnl_d2.errors import UsageError

_SAMPLE = 20_000  # annotations that are looked at, evenly spaced
_SLACK = 2.0  # pixels by which tools differ
_MANY = 0.05  # of all objects: no slip any more
_MOST = 0.5
_FEW = 2  # objects, which prove nothing
_AGREE = 0.5  # intersection over union

_Corners = tuple[float, float, float, float]  # x1, y1, x2, y2


def judge_boxes(form: CocoForm) -> list[str]:
    """Compares boxes with their images and, where there are polygons, with these.

    Returns:
        What may be wrong, a line each.

    Raises:
        UsageError: the boxes fit only as pairs of corners.
    """
    images = {image.id: image for image in form.images}
    entries = form.annotations or []
    sample = entries[:: max(1, len(entries) // _SAMPLE)]
    objects = [entry for entry in sample if object_kind(entry, images[entry.image_id]) is None]
    leaving = [entry for entry in objects if not _inside(_corners(entry), images[entry.image_id])]
    outlined = [(entry, box) for entry in objects if (box := _outline(entry)) is not None]
    differing = [entry for entry, box in outlined if _overlap(_corners(entry), box) < _AGREE]
    # Some boxes may leave their image, as those of hidden parts do; most of them do not.
    proof = differing if outlined else leaving if len(leaving) > _MOST * len(objects) else []
    if len(proof) > _FEW and _fit_as_corners(objects, outlined, images):
        x1, y1, x2, y2 = proof[0].bbox
        raise UsageError(
            f"'bbox' is [x, y, width, height], those of the file fit as [x1, y1, x2, y2]: for "
            f"annotation {proof[0].id} write {[x1, y1, x2 - x1, y2 - y1]} in place of "
            f"{list(proof[0].bbox)}, and so on"
        )
    if objects and all(max(_corners(entry)) <= 1 for entry in objects):
        raise UsageError(
            f"'bbox' is in pixels, those of the file are parts of the image, such as "
            f"{list(objects[0].bbox)}: multiply them with its width and height"
        )
    told = ((leaving, "boxes leave their image"), (differing, "boxes differ from their polygons"))
    return [
        f"{len(found)} of {len(objects)} {words}, first that of annotation {found[0].id}, "
        f"{list(found[0].bbox)}: 'bbox' is [x, y, width, height] in pixels, not two corners"
        for found, words in told
        if len(found) > _MANY * len(objects)
    ]


def _fit_as_corners(
    objects: list[CocoAnnotation],
    outlined: list[tuple[CocoAnnotation, _Corners]],
    images: Mapping[Id, CocoImage],
) -> bool:
    for entry in objects:
        x1, y1, x2, y2 = entry.bbox
        if not (x1 < x2 and y1 < y2 and _inside(entry.bbox, images[entry.image_id])):
            return False
    return all(_overlap(entry.bbox, box) >= _AGREE for entry, box in outlined)


def _corners(entry: CocoAnnotation) -> _Corners:
    x, y, width, height = entry.bbox
    return x, y, x + width, y + height


def _inside(box: _Corners, image: CocoImage) -> bool:
    x1, y1, x2, y2 = box
    return min(x1, y1) >= -_SLACK and x2 <= image.width + _SLACK and y2 <= image.height + _SLACK


def _outline(entry: CocoAnnotation) -> _Corners | None:
    """The box around polygons."""
    mask = entry.segmentation
    if mask is None or isinstance(mask, RunLengths):
        return None
    xs = [x for polygon in mask for x in polygon[0::2]]
    ys = [y for polygon in mask for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(one: _Corners, other: _Corners) -> float:
    """Intersection over union; a pixel wider each, so that thin ones have an area."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (one, other)]
    return common / (sum(areas) - common)
