"""The images that a file in COCO's form names."""

import math
import os
from collections.abc import Sequence

from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image

from dnl_d2.data.datasets.coco_schema import CocoImage
from dnl_d2.data.images import load_picture
from dnl_d2.data.listing import count_and_name, list_folder, without
from dnl_d2.errors import UsageError

_DEEP_GREY = ("I", "F")  # modes of Pillow, I;16 and its like included


def check_images(images: Sequence[CocoImage], root: str, *, key: str, max_files: int) -> None:
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
        told = count_and_name(missing, len(names), f"images are not in {where}")
        raise UsageError(told + _where_instead(missing[0], root))
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
        if (height, width) != (image.height, image.width):
            turned = ", turned by its EXIF entry" if (width, height) != picture.size else ""
            raise UsageError(
                f"image {path} is {width}x{height} (width x height{turned}), the file says "
                f"{image.width}x{image.height}"
            )


def _where_instead(name: str, root: str) -> str:
    """A hint where the folder is named twice, by the config and by each image."""
    above = os.path.dirname(os.path.abspath(root))
    if PathManager.isfile(os.path.join(above, name)):
        return f"; they are in the folder above, {above}: give that as the folder of images"
    return ""


def _path_of(image: CocoImage, key: str) -> str:
    path = getattr(image, key)
    if key == "coco_url":
        path = os.path.join(*path.split("/")[-2:])
    return os.path.normpath(path)


def _turned_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height as Detectron2 shows a picture: from EXIF's 5 on it is stored on its side."""
    width, height = picture.size
    exif = Image.Exif()
    exif.load(picture.info.get("exif", b""))
    return (height, width) if exif.get(ExifTags.Base.Orientation, 1) >= 5 else (width, height)
