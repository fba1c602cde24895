"""JSON files in COCO's form, taken as they are meant where that is plain."""

import functools
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.coco_masks import (
    MAX_PIXELS,
    RunLengths,
    check_mask,
    has_pixels,
    has_points,
    whole_polygons,
)
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
from dnl_d2.files import require_regular, write_bytes

_logger = logging.getLogger(__name__)
_MAX_ID = 2**53
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")

# What an object may be that is neither learned nor evaluated.
CROWD = "crowd regions"
FLAT = "boxes without area"
OUTSIDE = "boxes outside of their image"
THIN = "objects without a polygon of three points"


class Odd(Enum):
    """What Detectron2's and pycocotools' readers would take otherwise than it is meant."""

    WRITING = "numbers or text are written otherwise"
    IDS = "ids are no whole numbers from 0 on, numbered anew"
    MIXED_IDS = "some ids are texts, numbered anew"
    TWICE = "entries are there twice"
    NO_TEXT = "names are no texts"
    SAME_NAME = "categories have one name, told apart"
    CROWD = "'iscrowd' is null, taken as 0"
    IGNORE = "'ignore' is not 0, but empty"
    NO_MASK = "'segmentation' has no point, taken as missing"
    NO_PIXEL = "run lengths have no pixel inside, taken as missing"
    NOTHING = "objects have neither a box with an area nor a mask, left out"
    NUMBERS = "annotations have the id of another, or none, numbered anew"
    BACKSLASH = "'file_name' has '\\', taken as '/'"


# What Detectron2's own reader bears as well.
_BORNE = (Odd.IDS, Odd.SAME_NAME, Odd.NO_TEXT, Odd.NO_PIXEL)

_sound: set[tuple] = set()  # files, by path, time and size, that are read here as everywhere


def read_coco_json(path: str, *, image_key: str = "file_name") -> tuple[CocoForm, dict[Odd, str]]:
    """Reads such a file as it is meant.

    In what is returned the ids of images and categories are whole numbers from 0 on (others are
    numbered anew in the order of the old ones, which stay as ``source_id``), names of categories
    are different texts, ``iscrowd`` is 0, 1 or unset, and ``segmentation`` is None, has a point or,
    of run lengths, a pixel.

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
    notes = {Odd.WRITING: odd} if odd else {}
    _Reader(form, notes, image_key).read()
    if not notes:
        _sound.add((*stamp, image_key))
    return form, notes


def require_borne(notes: Mapping[Odd, str], path: str) -> None:
    """For a dataset that Detectron2 has registered, whose reader gets the file as it is.

    Raises:
        UsageError: that reader would take it otherwise.
    """
    for odd, example in notes.items():
        # COCO's own files of 2014 repeat ids, which Detectron2 lets pass.
        if odd not in _BORNE and not (odd is Odd.NUMBERS and "minival" in path):
            raise UsageError(
                f"{odd.value} ({example}), which Detectron2's own reader takes otherwise: correct "
                "it, or declare the dataset in DATASETS.COCO (dnl_d2.data.register_coco_dataset)"
            )


def readable_copy(path: str) -> str:
    """A file that Detectron2 and pycocotools read as :func:`read_coco_json` does.

    Returns:
        ``path``, or a copy that is there until the process ends; the log says why.

    Raises:
        UsageError: see :func:`read_coco_json`.
    """
    stamp = _stamp(path)
    return path if (*stamp, "file_name") in _sound else _copy(path, stamp)


@functools.lru_cache(maxsize=64)
def _copy(path: str, stamp: tuple) -> str:
    form, notes = read_coco_json(path)
    if not notes:
        return path
    told = "; ".join(f"{odd.value} ({example})" for odd, example in notes.items())
    _logger.warning("%s is taken as it is meant: %s", path, told)
    copy = os.path.join(_folder().name, f"{len(os.listdir(_folder().name))}.json")
    write_bytes(copy, msgspec.json.encode(form))
    return copy


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="dnl_d2-coco-")


def object_kind(entry: CocoAnnotation, image: CocoImage) -> str | None:
    """Why an object is neither learned nor evaluated; None: it is both."""
    if entry.iscrowd == 1:
        return CROWD
    if isinstance(entry.segmentation, list) and not whole_polygons(entry.segmentation):
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
        folder = os.environ.get("DETECTRON2_DATASETS", "datasets")
        where = f" (datasets are looked for under $DETECTRON2_DATASETS={folder})"
        raise UsageError(f"there is no such file{'' if os.path.isabs(path) else where}") from error
    except OSError as error:
        raise _unreadable(error) from error
    return path, status.st_mtime_ns, status.st_size


def _read(path: str) -> tuple[tuple, bytes]:
    stamp = _stamp(path)
    try:
        require_regular(path)
        with PathManager.open(path, "rb") as file:
            return stamp, file.read()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> UsageError:
    return UsageError(f"cannot be read ({' '.join(str(error).split())}): replace the file")


class _Reader:
    """Goes through a decoded file once, and changes it in place."""

    def __init__(self, form: CocoForm, notes: dict[Odd, str], image_key: str):
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
        for number, entry in enumerate(form.annotations or ()):
            what = label("annotations", number, entry)
            entry.image_id = _referred(image_ids, entry.image_id, what, "image")
            entry.category_id = _referred(category_ids, entry.category_id, what, "category")
            if entry.ignore != 0:
                self._check_ignored(entry, what)
            self._check_object(entry, images[entry.image_id], what)
            if len(entry.keypoints or ()) % 3:
                raise UsageError(
                    f"{what} has {len(entry.keypoints or ())} numbers in 'keypoints': write x, y "
                    "and visibility of each"
                )
            if entry.id is None or entry.id in ids:
                self._note(Odd.NUMBERS, what)
            ids.add(entry.id)
        if Odd.NOTHING in self._notes and form.annotations:
            form.annotations = [entry for entry in form.annotations if not _is_nothing(entry)]
        if Odd.NUMBERS in self._notes:
            for number, entry in enumerate(form.annotations or (), start=1):
                entry.id = number

    def _note(self, odd: Odd, example: str) -> None:
        self._notes.setdefault(odd, example)

    def _with_whole_ids(self, entries: list, key: str) -> tuple[list, dict[Id, int]]:
        """The entries, each once, and their new ids by the old ones."""
        by_id: dict[Id, Any] = {}
        for number, entry in enumerate(entries):
            same = by_id.setdefault(_plain(entry.id), entry)
            if same is not entry:
                if same != entry:
                    raise UsageError(f"two of {key!r} have the id {entry.id!r}: number them anew")
                self._note(Odd.TWICE, label(key, number, entry))
        ids: dict[Id, int] = {
            old: old for old in by_id if isinstance(old, int) and 0 <= old <= _MAX_ID
        }
        if len(ids) < len(by_id):
            order = sorted(by_id, key=lambda old: (isinstance(old, str), old))
            ids = {old: number for number, old in enumerate(order, start=1)}
        texts = {isinstance(entry.id, str) for entry in by_id.values()}
        for old, entry in by_id.items():
            if not _is_whole(entry.id):
                self._note(Odd.IDS if len(texts) == 1 else Odd.MIXED_IDS, f"{key}: {entry.id!r}")
            if type(entry.id) is not int or entry.id != ids[old]:
                entry.source_id, entry.id = entry.id, ids[old]
        return list(by_id.values()), ids

    def _tell_names_apart(self, categories: Sequence[CocoCategory]) -> None:
        taken: set[str] = set()
        for category in sorted(categories, key=lambda category: category.id):
            if not isinstance(category.name, str):
                self._note(Odd.NO_TEXT, repr(category.name))
            name = category.name = str(category.name)
            if name in taken:
                found = category.id if category.source_id is None else category.source_id
                category.name = f"{name} (id {found})"
                self._note(Odd.SAME_NAME, f"{name!r}, now {category.name!r}")
            taken.add(category.name)

    def _check_image(self, image: CocoImage) -> None:
        if not getattr(image, self._image_key):
            raise UsageError(f"not in COCO's form: image {image.id} has no {self._image_key!r}")
        if image.height * image.width > MAX_PIXELS:
            raise UsageError(
                f"image {image.id} has more than 2**30 pixels: correct 'height' and 'width', or "
                "cut it into tiles"
            )
        if image.file_name and "\\" in image.file_name and os.sep == "/":
            self._note(Odd.BACKSLASH, image.file_name)
            image.file_name = image.file_name.replace("\\", "/")

    def _check_object(self, entry: CocoAnnotation, image: CocoImage, what: str) -> None:
        if entry.iscrowd is None:
            self._note(Odd.CROWD, what)
            entry.iscrowd = 0
        mask = entry.segmentation
        if mask is not None and has_points(mask):
            check_mask(mask, image.height, image.width, what)
            if not isinstance(mask, RunLengths) or has_pixels(mask):
                return
            self._note(Odd.NO_PIXEL, what)
        elif mask:
            self._note(Odd.NO_MASK, what)
        entry.segmentation = None
        if _is_nothing(entry):
            self._note(Odd.NOTHING, what)

    def _check_ignored(self, entry: CocoAnnotation, what: str) -> None:
        if entry.ignore:
            raise UsageError(f"{what} has 'ignore', which Detectron2 refuses: use 'iscrowd'")
        self._note(Odd.IGNORE, what)
        entry.ignore = 0


def _is_nothing(entry: CocoAnnotation) -> bool:
    """Some tools leave such an entry behind when an object is deleted."""
    return entry.segmentation is None and not (entry.bbox[2] and entry.bbox[3])


def _is_whole(found: Id) -> bool:
    return type(found) is int and 0 <= found <= _MAX_ID


def _plain(found: Id) -> Id:
    """An id as a whole number where it is one, or one's usual text."""
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return int(found) if isinstance(found, str) and _WHOLE.fullmatch(found) else found


def _referred(ids: Mapping[Id, int], found: Id, what: str, kind: str) -> int:
    number = ids.get(found)
    if number is None:
        number = ids.get(_plain(found))
    if number is None:
        raise UsageError(f"{what} has the {kind}_id {found!r}: there is no such {kind}")
    return number
