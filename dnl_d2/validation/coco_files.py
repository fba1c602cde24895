"""Files in COCO's form, and the images that they name."""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

from dnl_d2.data.images import load_picture
from dnl_d2.data.listing import count_and_name, list_folder, without
from dnl_d2.errors import UsageError

_logger = logging.getLogger(__name__)
_REQUIRED = ("images", "categories")
_DEEP_GREY = ("I", "F")  # modes of Pillow, I;16 and its like included


def read_coco_form(path: str) -> dict:
    """Reads a JSON file with lists of images, of categories and, if it is there, of annotations.

    Raises:
        UsageError: the file is missing, no JSON, or one of the first two is missing or empty.
    """
    try:
        with PathManager.open(path, "r") as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise UsageError(
            "there is no such file (datasets are looked for under $DETECTRON2_DATASETS="
            f"{os.environ.get('DETECTRON2_DATASETS', 'datasets')})"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: no JSON, or no text
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot be read as JSON ({reason}): replace the file") from error
    require_keys(content, "the file", _REQUIRED)
    for key in (*_REQUIRED, "annotations"):
        if not isinstance(content.get(key, []), list):
            raise UsageError(f"not in COCO's form: {key!r} is no list")
        if key in _REQUIRED and not content[key]:
            raise UsageError(f"{key!r} is empty: the dataset has none")
    return content


def entries_by_id(content: Mapping, key: str, keys: Sequence[str]) -> dict[Any, Mapping]:
    """A list of the file by the ids of its entries.

    Args:
        content: of the file.
        key: of the list.
        keys: what each entry needs, ``id`` included.

    Raises:
        UsageError: an entry lacks a key, or two have one id.
    """
    found: dict[Any, Mapping] = {}
    for number, entry in enumerate(content[key]):
        require_keys(entry, f"number {number} of {key!r}", keys)
        if entry["id"] in found:
            raise UsageError(f"two of {key!r} have the id {entry['id']!r}: number them anew")
        found[entry["id"]] = entry
    return found


def require_keys(entry: Any, what: str, keys: Sequence[str]) -> None:
    """Raises a :class:`UsageError` that names the first of ``keys`` that ``entry`` lacks."""
    for key in keys:
        if not isinstance(entry, Mapping) or key not in entry:
            raise UsageError(f"not in COCO's form: {what} has no {key!r}")


def class_names(categories: Mapping[Any, Mapping]) -> list[str]:
    """Names of the categories in the order of their ids, as Detectron2 numbers classes.

    Names that are there twice are logged: one may be a group without objects, as in some exports.
    """
    names = [str(entry["name"]) for _, entry in sorted(categories.items())]
    for name, count in Counter(names).items():
        if count > 1:
            _logger.warning("%d categories have the name %r: they stay different", count, name)
    return names


def check_images(images: Sequence[Mapping], root: str, *, key: str, max_files: int) -> None:
    """Looks for every image, by one listing of each folder, and compares the sizes of some.

    Args:
        images: entries of the file.
        root: folder of the images.
        key: of an image's path; of an address (``coco_url``) its last folder and name count.
        max_files: how many headers to read, evenly spaced; 0 for none.

    Raises:
        UsageError: images are missing, unreadable, deeper than 8 bits or of another size than the
            file says.
    """
    names = [_path_of(image, key) for image in images]
    there: set[str] = set()
    for folder in {os.path.dirname(name) for name in names}:
        entries = list_folder(os.path.join(root, folder) or ".")
        there.update(os.path.join(folder, entry) for entry in entries)
    missing = without(names, there)
    if missing:
        where = root or "."
        if not PathManager.isdir(where):
            wrong = "is not a folder" if PathManager.exists(where) else "does not exist"
            where = f"{where}, which {wrong}"
        raise UsageError(count_and_name(missing, len(names), f"images are not in {where}"))
    pairs = list(zip(images, names, strict=True))
    step = math.ceil(len(pairs) / max_files) if max_files else 1
    for image, name in pairs[::step] if max_files else ():
        path = os.path.join(root, name)
        picture = load_picture(path, header_only=True)
        if picture.mode.startswith(_DEEP_GREY):
            raise UsageError(
                f"image {path} has more than 8 bits (mode {picture.mode}), which Detectron2 reads "
                "as white: convert it to 8 bits"
            )
        width, height = _turned_size(picture)
        if (height, width) != (image["height"], image["width"]):
            raise UsageError(
                f"image {path} is {width}x{height} (width x height), the file says "
                f"{image['width']}x{image['height']}"
            )


def _path_of(image: Mapping, key: str) -> str:
    path = str(image[key])
    if key == "coco_url":
        path = os.path.join(*path.split("/")[-2:])
    return os.path.normpath(path)


def _turned_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height as Detectron2 shows a picture: from EXIF's 5 on it is stored on its side."""
    width, height = picture.size
    exif = Image.Exif()
    exif.load(picture.info.get("exif", b""))
    return (height, width) if exif.get(ExifTags.Base.Orientation, 1) >= 5 else (width, height)
