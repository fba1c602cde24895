"""The schema of JSON files in COCO's form, and what is said of a file that does not follow it."""

import codecs
import json
import re
import reprlib
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from dnl_d2.data.datasets.coco_masks import Polygons, RunLengths
from dnl_d2.errors import UsageError, shortened

Id = int | float | str
_Number = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Length = Annotated[float, Meta(ge=0, le=1e6)]
_Pixels = Annotated[int, Meta(ge=1, le=2**20)]
_SOURCE = "dnl_d2_source_id"  # in a copy with other ids: that of the user's file
_Flag = Annotated[int, Meta(ge=0, le=1)]


class CocoImage(Struct, gc=False, omit_defaults=True):
    """An entry of ``images``; LVIS has ``coco_url`` in place of ``file_name``."""

    id: Id
    height: _Pixels
    width: _Pixels
    file_name: str | None = None
    coco_url: str | None = None
    source_id: Id | None = field(default=None, name=_SOURCE)


class CocoCategory(Struct, omit_defaults=True):
    """An entry of ``categories``."""

    id: Id
    name: str | int | float
    keypoints: Any = None  # names, and below pairs of them by number from 1 on
    skeleton: Any = None
    source_id: Id | None = field(default=None, name=_SOURCE)


class CocoAnnotation(Struct, gc=False, omit_defaults=True):
    """An entry of ``annotations``."""

    image_id: Id
    category_id: Id
    bbox: tuple[_Number, _Number, _Length, _Length]  # x, y, width, height
    id: Id | None = None
    area: float | None = None
    iscrowd: _Flag | bool | UnsetType | None = UNSET
    segmentation: Polygons | RunLengths | None = None
    keypoints: list[_Number] | None = None
    num_keypoints: int | None = None
    ignore: Any = 0


class CocoForm(Struct, omit_defaults=True):
    """What such a file holds."""

    images: Annotated[list[CocoImage], Meta(min_length=1)]
    categories: Annotated[list[CocoCategory], Meta(min_length=1)]
    annotations: list[CocoAnnotation] | None = None


# What belongs into a field, for messages.
_MEANT = {
    "id": "a number or a text",
    "image_id": "the id of an image",
    "category_id": "the id of a category",
    "height": "a whole number of pixels from 1 to 2**20",
    "width": "a whole number of pixels from 1 to 2**20",
    "file_name": "a text",
    "coco_url": "a text",
    "name": "a text",
    "bbox": "[x, y, width, height] in pixels, none of the last two negative",
    "area": "a number of pixels",
    "iscrowd": "0, or 1 for a group",
    "segmentation": (
        "a list of polygons [x1, y1, x2, y2, ...] in pixels, or run lengths, {'size': [height, "
        "width], 'counts': a list or text as of pycocotools.mask.encode}"
    ),
    "keypoints": "a list of numbers [x1, y1, v1, x2, y2, v2, ...]",
    "num_keypoints": "a whole number",
}
_PLACE = re.compile(r" - at `\$(?:\.(\w+))?(?:\[(\d+)\])?(?:\.(\w+))?[^`]*`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_CHUNK = 1 << 22
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlist = 40
_strict = msgspec.json.Decoder(CocoForm)


def decode(text: bytes) -> tuple[CocoForm, str | None]:
    """Decodes a file; numbers may be texts, and whole numbers may end in ``.0``.

    Returns:
        What it holds; and what only this reader bears, None if there is nothing.

    Raises:
        UsageError: the text is no JSON, or not of this form.
    """
    try:
        form = _strict.decode(text)
        _require_utf8(text)
        return form, None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        strictly = error
    try:
        content = json.loads(text)  # also UTF-16, a byte-order mark and NaN
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot be read as JSON ({reason}): replace the file") from error
    _require_unicode(text, content)
    try:
        form = msgspec.convert(content, CocoForm, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError("".join(_explain(str(error), content))) from error
    placed = _PLACE.search(str(strictly))
    return form, _explain(str(strictly), content)[0] if placed else "it is no plain JSON in UTF-8"


def _require_utf8(text: bytes) -> None:
    """msgspec does not look at what it skips, and other readers do."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _CHUNK):
        decoder.decode(text[start : start + _CHUNK])


def _require_unicode(text: bytes, content: Any) -> None:
    """JSON can escape half of a pair of surrogates, which no file's name or output can have."""
    if b"\\" not in text:
        return
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a text is no Unicode ({shortened(error)}): replace the file") from error


def label(key: str, number: int, entry: Any) -> str:
    """What to call an entry in a message.

    Args:
        key: of its list.
        number: of the entry in it, from 0 on.
        entry: a mapping or a structure; annotations are called by their id.
    """
    found = entry.get("id") if isinstance(entry, dict) else getattr(entry, "id", None)
    if key == "annotations" and found is not None:
        return f"annotation {_SHORT.repr(found) if isinstance(found, (list, dict)) else found}"
    return f"number {number} of {key!r}"


def _explain(message: str, content: Any) -> tuple[str, str]:
    """What is found at the place that msgspec names; and how the line goes on, if it does."""
    place = _PLACE.search(message)
    key, number, name = place.groups() if place else (None, None, None)
    missing = _MISSING.search(message)
    if place is None or key is None or number is None:
        if missing and key is None:
            return f"not in COCO's form: the file has no {missing[1]!r}", ""
        if key is None:
            return "not in COCO's form: the file has no 'images'", ""
        if isinstance(content[key], list):
            return f"{key!r} is empty: the dataset has none", ""
        return f"not in COCO's form: {key!r} is no list", ""
    entry = content[key][int(number)]
    what = label(key, int(number), entry)
    if missing and name is None:
        return f"not in COCO's form: {what} has no {missing[1]!r}", ""
    if name is None:
        return f"not in COCO's form: {what} is {_SHORT.repr(entry)}, no mapping", ""
    found = f"{what} has the {name} {_SHORT.repr(entry.get(name))}"
    reason = message[: place.start()].replace("`", "")
    return found, f" ({reason}): it is {_MEANT.get(name, 'something else')}"
