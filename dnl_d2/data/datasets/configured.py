"""Datasets that a YAML config declares: the keys DATASETS.FOLDERS and DATASETS.COCO."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from dnl_d2.data.datasets.coco import register_coco_dataset
from dnl_d2.data.datasets.folder import register_sem_seg_folder
from dnl_d2.data.datasets.registration import dataset_path
from dnl_d2.data.listing import read_lines
from dnl_d2.errors import UsageError

# Keys of an entry that it needs, and others that it may have.
_FOLDER_KEYS = (("NAME", "IMAGES"), ("LABELS", "CLASSES", "COLORS", "IGNORE_LABEL", "STEMS"))
_COCO_KEYS = (("NAME", "IMAGES", "JSON"), ("KEYPOINTS", "KEYPOINT_FLIP_MAP", "SKELETON"))
_registered: set[str] = set()  # by this module: a config may be loaded twice


def register_configured(datasets: Mapping[str, Any]) -> None:
    """Registers what ``cfg.DATASETS`` lists in FOLDERS and COCO; nothing where an entry is wrong.

    Args:
        datasets: FOLDERS are mappings with NAME, IMAGES, LABELS, CLASSES (a list of names, or a
            text file with one name a line), and if wanted COLORS (an RGB triple per class),
            IGNORE_LABEL and STEMS (a text file of the stems that count, one a line); those without
            LABELS are only to be predicted and need no CLASSES. COCO are mappings with NAME, IMAGES
            (a folder) and JSON (a file), and if wanted KEYPOINTS (names), KEYPOINT_FLIP_MAP and
            SKELETON (pairs of names). Relative paths are taken from
            ``$DETECTRON2_DATASETS``.

    Raises:
        UsageError: an entry lacks a key, has another one or a value of the wrong type, two entries
            or an entry and one of this library's datasets have the same name, or the file of class
            names cannot be read.
    """
    kinds = (
        ("DATASETS.FOLDERS", datasets["FOLDERS"], _folder_arguments, register_sem_seg_folder),
        ("DATASETS.COCO", datasets["COCO"], _coco_arguments, register_coco_dataset),
    )
    calls: dict[str, tuple] = {}
    for key, entries, arguments_of, register in kinds:
        if not isinstance(entries, (list, tuple)):
            raise UsageError(f"{key} is a list of mappings, not {entries!r}")
        for number, entry in enumerate(entries):
            arguments = arguments_of(entry, f"{key}[{number}]")
            name = arguments["name"]
            if name in calls:
                raise UsageError(
                    f"{key}[{number}].NAME: {name!r} is there twice, choose another name"
                )
            require_new_name(name, f"{key}[{number}].NAME")
            calls[name] = (register, arguments)
    for register, arguments in calls.values():
        register(**arguments)
    _registered.update(calls)


def require_new_name(name: str, key: str) -> None:
    """Raises a UsageError if there is a dataset of that name that no config has declared."""
    if name in DatasetCatalog.list() and name not in _registered:
        raise UsageError(f"{key}: there is a dataset {name!r} already, choose another name")


def read_class_names(path: str, key: str) -> list[str]:
    """Reads class names from a text file, one a line; empty lines at its end do not count.

    Raises:
        UsageError: the file cannot be read, or see :func:`check_class_names`.
    """
    try:
        names = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{key}: the file of class names {path} cannot be read ({reason}): give a text file "
            "with one name a line, or the list of names"
        ) from error
    while names and not names[-1]:
        names.pop()
    return check_class_names(names, f"{key} ({path})")


def check_class_names(names: Sequence[str], key: str) -> list[str]:
    """Returns the names as a list.

    Raises:
        UsageError: there is none, one is no text or empty, or one is there twice.
    """
    for number, name in enumerate(names):
        if not isinstance(name, str):  # YAML reads 1, on and no as what they are not
            raise UsageError(f"{key}: {name!r} is no text, write it in quotes")
        if not name.strip():
            raise UsageError(f"{key}: class {number} has no name, give it one or take it off")
        if name in names[:number]:
            raise UsageError(f"{key}: class {name!r} is there twice, rename one")
    if not names:
        raise UsageError(f"{key} names no class")
    return list(names)


def _folder_arguments(entry: Any, key: str) -> dict[str, Any]:
    """An entry as the arguments of :func:`register_sem_seg_folder`."""
    _check_keys(entry, key, *_FOLDER_KEYS)
    labelled = "LABELS" in entry
    _check_texts(entry, key, "NAME", "IMAGES", *(k for k in ("LABELS", "STEMS") if k in entry))
    if labelled and "CLASSES" not in entry:
        raise UsageError(f"{key} lacks CLASSES: an entry with LABELS needs their names")
    ignore_label = entry.get("IGNORE_LABEL", 255)
    if not isinstance(ignore_label, int) or isinstance(ignore_label, bool):
        raise UsageError(f"{key}.IGNORE_LABEL is a whole number, not {ignore_label!r}")
    classes = _classes(entry["CLASSES"], f"{key}.CLASSES") if "CLASSES" in entry else None
    return {
        "name": entry["NAME"],
        "image_dir": entry["IMAGES"],
        "label_dir": entry.get("LABELS"),
        "classes": classes,
        "colors": _colors(entry.get("COLORS"), len(classes or ()), f"{key}.COLORS"),
        "ignore_label": ignore_label,
        "stems_file": entry.get("STEMS"),
    }


def _coco_arguments(entry: Any, key: str) -> dict[str, Any]:
    """An entry as the arguments of :func:`register_coco_dataset`."""
    _check_keys(entry, key, *_COCO_KEYS)
    _check_texts(entry, key, "NAME", "IMAGES", "JSON")
    return {name.lower(): value for name, value in entry.items()}


def _check_texts(entry: Mapping[str, Any], key: str, *names: str) -> None:
    for name in names:
        if not isinstance(entry[name], str) or not entry[name]:
            raise UsageError(f"{key}.{name} is a text, not {entry[name]!r}")


def _check_keys(entry: Any, key: str, required: Sequence[str], optional: Sequence[str]) -> None:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{key} is a mapping with {', '.join(required)}, not {entry!r}")
    known = (*required, *optional)
    for name in entry:
        if name not in known:
            close = difflib.get_close_matches(str(name).upper(), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(f"{key} has no key {name!r}; {hint}known: {', '.join(known)}")
    missing = [name for name in required if name not in entry]
    if missing:
        raise UsageError(
            f"{key} lacks {', '.join(missing)}: every entry needs {', '.join(required)}"
        )


def _classes(value: Any, key: str) -> list[str]:
    if isinstance(value, str) and value:
        return read_class_names(dataset_path(value), key)
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{key} is a list of names or a text file of names, not {value!r}")
    return check_class_names(value, key)


def _colors(value: Any, count: int, key: str) -> list[tuple[int, ...]] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(_is_color(color) for color in value):
        raise UsageError(f"{key} is a list of [red, green, blue] from 0 to 255, not {value!r}")
    if len(value) != count:
        raise UsageError(f"{key} has {len(value)} colours for {count} classes, give one per class")
    return [tuple(color) for color in value]


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )
