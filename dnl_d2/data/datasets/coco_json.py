"""JSON files in COCO's form, taken as they are meant where that is plain."""

import functools
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.coco_masks import check_mask, has_points, whole_polygons
from dnl_d2.data.datasets.coco_schema import (
    CocoAnnotation,
    CocoCategory,
    CocoForm,
    CocoImage,
    Id,
    decode,
    label,
)
from dnl_d2.errors import UsageError

_logger = logging.getLogger(__name__)
_MAX_PIXELS = 2**30  # of an image, as of the pictures that are read
_MAX_ID = 2**53
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NO_ID = "annotations have the id of another, or none"

# What an object may be that is neither learned nor evaluated.
CROWD = "crowd regions"
FLAT = "boxes without area"
OUTSIDE = "boxes outside of their image"
THIN = "objects whose polygons have no three points"

SAME_NAME = "two categories have one name"
_sound: set[tuple] = set()  # files, by path, time and size, that are read here as everywhere


def read_coco_json(path: str, *, image_key: str = "file_name") -> tuple[CocoForm, dict[str, str]]:
    """Reads such a file as it is meant.

    In what is returned the ids of images and categories are whole numbers from 0 on (others are
    numbered anew in the order of the old ones, which stay as ``source_id``), names of categories
    are different texts, ``iscrowd`` is 0, 1 or unset, and ``segmentation`` is None or has a point.

    Args:
        path: of the file.
        image_key: where an image's entry has its path; LVIS has ``coco_url``.

    Returns:
        What it holds; and what Detectron2 and pycocotools would take differently, each with the
        first example.

    Raises:
        UsageError: the file is missing or not of this form, an entry has what cannot be meant, or
            refers to what is not there.
    """
    stamp, text = _read(path)
    form, odd = decode(text)
    notes = {"numbers are no plain numbers": odd} if odd else {}
    _Reader(form, notes, image_key).read()
    if not notes:
        _sound.add(stamp)
    return form, notes


def readable_copy(path: str) -> str:
    """A file that Detectron2 and pycocotools read as :func:`read_coco_json` does.

    Returns:
        ``path``, or a copy that is there until the process ends; the log says why.

    Raises:
        UsageError: see :func:`read_coco_json`.
    """
    stamp = _stamp(path)
    return path if stamp in _sound else _copy(path, stamp)


@functools.lru_cache(maxsize=64)
def _copy(path: str, stamp: tuple) -> str:
    form, notes = read_coco_json(path)
    if not notes:
        return path
    told = "; ".join(f"{kind} ({example})" for kind, example in notes.items())
    _logger.warning("%s is taken as it is meant: %s", path, told)
    file, copy = tempfile.mkstemp(suffix=".json", dir=_folder().name)
    with os.fdopen(file, "wb") as opened:
        opened.write(msgspec.json.encode(form))
    return copy


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="dnl_d2-coco-")


def object_kind(entry: CocoAnnotation, image: CocoImage) -> str | None:
    """Why an object is neither learned nor evaluated; None: it is both."""
    if entry.iscrowd == 1:
        return CROWD
    mask = entry.segmentation
    if isinstance(mask, list) and not whole_polygons(mask):
        return THIN
    x, y, width, height = entry.bbox
    if not (width and height):
        return FLAT
    inside = x < image.width and y < image.height and x + width > 0 and y + height > 0
    return None if inside else OUTSIDE


def _stamp(path: str) -> tuple:
    try:
        status = os.stat(PathManager.get_local_path(path))
    except FileNotFoundError as error:
        raise UsageError(
            "there is no such file (datasets are looked for under $DETECTRON2_DATASETS="
            f"{os.environ.get('DETECTRON2_DATASETS', 'datasets')})"
        ) from error
    except OSError as error:
        raise _unreadable(error) from error
    return path, status.st_mtime_ns, status.st_size


def _read(path: str) -> tuple[tuple, bytes]:
    stamp = _stamp(path)
    try:
        with PathManager.open(path, "rb") as file:
            return stamp, file.read()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UsageError:
    return UsageError(f"cannot be read ({' '.join(str(error).split())}): replace the file")


class _Reader:
    """Goes through a decoded file once, and changes it in place."""

    def __init__(self, form: CocoForm, notes: dict[str, str], image_key: str):
        self._form, self._notes, self._image_key = form, notes, image_key

    def read(self) -> None:
        form = self._form
        form.images, image_ids = self._with_whole_ids(form.images, "images")
        form.categories, category_ids = self._with_whole_ids(form.categories, "categories")
        self._tell_names_apart(form.categories)
        for image in form.images:
            self._check_image(image)
        images = {image.id: image for image in form.images}
        ids: set[Id | float | None] = set()
        points = 0
        for number, entry in enumerate(form.annotations or ()):
            what = label("annotations", number, entry)
            entry.image_id = _referred(image_ids, entry.image_id, what, "image")
            entry.category_id = _referred(category_ids, entry.category_id, what, "category")
            if entry.ignore:
                raise UsageError(f"{what} has 'ignore', which Detectron2 refuses: use 'iscrowd'")
            self._check_object(entry, images[entry.image_id], what)
            if entry.keypoints:
                points = points or len(entry.keypoints)
                _check_keypoints(entry.keypoints, points, what)
            if entry.id is None or entry.id in ids:
                self._note(_NO_ID, what)
            ids.add(entry.id)
        if _NO_ID in self._notes:
            for number, entry in enumerate(form.annotations or (), start=1):
                entry.id = number

    def _note(self, kind: str, example: str) -> None:
        self._notes.setdefault(kind, example)

    def _with_whole_ids(self, entries: list, key: str) -> tuple[list, dict[Id, int]]:
        """The entries, each once, and their new ids by the old ones."""
        by_id: dict[Id, Any] = {}
        for number, entry in enumerate(entries):
            same = by_id.setdefault(_plain(entry.id), entry)
            if same is not entry:
                if same != entry:
                    raise UsageError(f"two of {key!r} have the id {entry.id!r}: number them anew")
                self._note(f"entries of {key!r} are there twice", label(key, number, entry))
        ids: dict[Id, int] = {}
        if all(isinstance(old, int) and 0 <= old <= _MAX_ID for old in by_id):
            ids = {old: int(old) for old in by_id}
        else:
            order = sorted(by_id, key=lambda old: (isinstance(old, str), old))
            ids = {old: number for number, old in enumerate(order, start=1)}
        for old, entry in by_id.items():
            if type(entry.id) is not int or entry.id != ids[old]:
                self._note(f"ids of {key!r} are no whole numbers from 0 on", repr(entry.id))
                entry.source_id = entry.id
                entry.id = ids[old]
        return list(by_id.values()), ids

    def _tell_names_apart(self, categories: Sequence[CocoCategory]) -> None:
        taken: set[str] = set()
        for category in sorted(categories, key=lambda category: category.id):
            name = category.name = str(category.name)
            if name in taken:
                category.name = f"{name} (id {category.id})"
                self._note(SAME_NAME, f"{name!r}, now {category.name!r}")
            taken.add(category.name)

    def _check_image(self, image: CocoImage) -> None:
        if not getattr(image, self._image_key):
            raise UsageError(f"not in COCO's form: image {image.id} has no {self._image_key!r}")
        if image.height * image.width > _MAX_PIXELS:
            raise UsageError(
                f"image {image.id} has more than 2**30 pixels: correct 'height' and 'width', or "
                "cut it into tiles"
            )
        if image.file_name and "\\" in image.file_name and os.sep == "/":
            self._note("'\\' in 'file_name' is taken as '/'", image.file_name)
            image.file_name = image.file_name.replace("\\", "/")

    def _check_object(self, entry: CocoAnnotation, image: CocoImage, what: str) -> None:
        if entry.iscrowd is None:
            self._note("'iscrowd' is null, taken as 0", what)
            entry.iscrowd = 0
        if entry.segmentation is None:
            return
        if has_points(entry.segmentation):
            check_mask(entry.segmentation, image.height, image.width, what)
            return
        if entry.segmentation:
            self._note("'segmentation' has no point, taken as missing", what)
        entry.segmentation = None


def _plain(found: Id) -> Id:
    """An id as a whole number where it is one's usual text."""
    return int(found) if isinstance(found, str) and _WHOLE.fullmatch(found) else found


def _referred(ids: Mapping[Id, int], found: Id, what: str, kind: str) -> int:
    number = ids.get(found)
    if number is None:
        number = ids.get(_plain(found))
    if number is None:
        raise UsageError(f"{what} has the {kind}_id {found!r}: there is no such {kind}")
    return number


def _check_keypoints(points: Sequence[float], length: int, what: str) -> None:
    if len(points) % 3:
        raise UsageError(
            f"{what} has {len(points)} numbers in 'keypoints': write x, y and visibility of each"
        )
    if len(points) != length:
        raise UsageError(
            f"{what} has {len(points) // 3} keypoints, others have {length // 3}: write all of "
            "them, with 0, 0, 0 for one that is not marked"
        )
