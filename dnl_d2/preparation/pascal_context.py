"""PASCAL Context: ``trainval_merged.json`` or ``trainval/*.mat`` -> label maps of 60 and of 59
classes, and the lists of both splits.

The dataset numbers 459 classes; 59 of them count and the others are background. The JSON file is
that of the PASCAL in Detail challenge, from which published models are trained. It is preferred.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np
from pycocotools import mask as rle

from dnl_d2.data.datasets.pascal_context import CLASSES, FOLDER, LABELS, LISTS
from dnl_d2.data.datasets.records import list_files, read_ids
from dnl_d2.data.labels import read_label
from dnl_d2.data.listing import find_files
from dnl_d2.errors import UsageError
from dnl_d2.files import require_regular
from dnl_d2.preparation.archives import compare_counts, lacking
from dnl_d2.preparation.label_conversion import (
    Conversion,
    Job,
    Report,
    convert_labels,
    jobs_to,
)
from dnl_d2.preparation.label_files import write_lines
from dnl_d2.preparation.mat import mat_loader, read_mat

OFFICIAL = {"train": 4998, "val": 5105}

# The numbers of the 59 classes among the 459, in the order of CLASSES.
_NUMBERS = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
_COUNT = 459

_MARK = f"{LISTS}/annotation.txt"  # names what labels and lists were made from


def prepare_pascal_context(root: str, *, workers: int) -> Report:
    """Prepares both sorts of label maps and the lists.

    Labels of 60 classes that are there already, in mmsegmentation's layout, do without the
    original files.

    Args:
        root: the folder that holds ``VOCdevkit/VOC2010``.
        workers: number of threads.

    Raises:
        UsageError: a folder or a list is missing, SciPy is, the JSON file cannot be read, labels
            are there that were made from the other annotation, or an output cannot be written.
    """
    base = os.path.join(root, FOLDER)
    hint = f"expected {base}/JPEGImages as VOCtrainval_03-May-2010.tar unpacks"
    images = list_files(os.path.join(base, "JPEGImages"), ".jpg", hint)
    merged, mats = f"{base}/trainval_merged.json", f"{base}/trainval"
    report = Report()
    if os.path.isfile(merged):
        splits = _from_json(base, merged, report, workers)
    elif os.path.isdir(mats):
        splits = _from_mats(base, mats, report, workers)
    elif os.path.isdir(f"{base}/{LABELS[60]}") and os.path.isdir(f"{base}/{LISTS}"):
        splits = _from_labels(base, report)
    else:
        raise UsageError(
            f"folder {base} holds neither trainval_merged.json nor trainval/*.mat: put one of "
            "them there"
        )
    report.notes += compare_counts({split: len(keys) for split, keys in splits.items()}, OFFICIAL)
    for split, keys in splits.items():
        what = f"pictures of {split} have no image in {base}/JPEGImages"
        report.problems += lacking(keys, images, what)
    _without_background(base, splits, report, workers)
    for split, keys in splits.items():
        write_lines(f"{base}/{LISTS}/{split}.txt", keys)
    return report


def draw_masks(picture: Mapping) -> np.ndarray:
    """Draws the masks of a picture over one another, as the Detail API does.

    Args:
        picture: its entry in the JSON file, with the masks beside it as "masks": pairs of class
            number and COCO run lengths.

    Returns:
        (H, W) class numbers of the 459; 0 where nothing is annotated.

    Raises:
        UsageError: a mask cannot be decoded or is of another size.
    """
    try:
        label = np.zeros((picture["height"], picture["width"]), np.int32)
        for number, mask in picture["masks"]:
            label[rle.decode(mask).astype(bool)] = number
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"label of {picture.get('file_name')} in trainval_merged.json cannot be drawn "
            f"({' '.join(str(error).split())}): download the file again"
        ) from error
    return label


def _from_json(base: str, path: str, report: Report, workers: int) -> dict[str, list[str]]:
    pictures = _read_json(path)
    _mark(base, path)
    jobs = [
        Job(f"of {key} in {path}", picture, f"{base}/{LABELS[60]}/{key}.png")
        for key, picture in pictures.items()
    ]
    convert_labels(jobs, _conversion(draw_masks), report, workers=workers, title="60 classes")
    return {
        split: sorted(key for key, picture in pictures.items() if picture["phase"] == split)
        for split in OFFICIAL
    }


def _read_json(path: str) -> dict[str, dict]:
    """Entries of the pictures of both splits by name, each with its "masks"."""
    try:
        require_regular(path)
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        masks = defaultdict(list)
        for item in content["annos_segmentation"]:
            masks[item["image_id"]].append((item["category_id"], item["segmentation"]))
        pictures = {
            os.path.splitext(image["file_name"])[0]: {**image, "masks": masks[image["image_id"]]}
            for image in content["images"]
            if image["phase"] in OFFICIAL
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read ({reason}): download it again") from error
    for split in OFFICIAL:
        if not any(each["phase"] == split and each["masks"] for each in pictures.values()):
            raise UsageError(f"{path} has no annotated picture of {split}: download it again")
    return pictures


def _mark(base: str, annotation: str) -> None:
    """Notes what is prepared from; refuses to mix it with what was made from another.

    Labels without a note are of mmsegmentation's converter, and taken as they are.
    """
    path, name = f"{base}/{_MARK}", os.path.basename(annotation)
    if os.path.isfile(path):
        earlier = read_ids(path, "delete it and the labels, and run again")[0]
        if earlier != name:
            raise UsageError(
                f"labels and lists in {base} were made from {earlier}, not from {name}, and the "
                f"two differ: delete the folders {', '.join(LABELS.values())} and {LISTS} there, "
                f"or take {name} away"
            )
    write_lines(path, [name])


def _from_mats(base: str, folder: str, report: Report, workers: int) -> dict[str, list[str]]:
    mat_loader()  # says now, rather than of every file, that SciPy is missing
    hint = f"expected {base} as VOCtrainval_03-May-2010.tar unpacks"
    splits = {split: read_ids(f"{base}/ImageSets/Main/{split}.txt", hint) for split in OFFICIAL}
    _mark(base, folder)
    mats = find_files(folder, ".mat")
    for split, keys in splits.items():
        report.problems += lacking(keys, mats, f"pictures of {split} have no *.mat in {folder}")
    jobs = jobs_to(f"{base}/{LABELS[60]}", _listed(mats, splits))
    conversion = _conversion(lambda path: read_mat(path, "LabelMap"))
    convert_labels(jobs, conversion, report, workers=workers, title="60 classes")
    return splits


def _from_labels(base: str, report: Report) -> dict[str, list[str]]:
    labels = find_files(f"{base}/{LABELS[60]}", ".png")
    hint = "delete the other lists and labels, and prepare from the original files"
    splits = {split: read_ids(f"{base}/{LISTS}/{split}.txt", hint) for split in OFFICIAL}
    for split, keys in splits.items():
        what = f"pictures of {LISTS}/{split}.txt have no label in {base}/{LABELS[60]}"
        report.problems += lacking(keys, labels, what)
    return splits


def _listed(files: Mapping[str, str], splits: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Name and file of each picture in a split; a missing one is among the problems already."""
    return [(key, files[key]) for key in chain.from_iterable(splits.values()) if key in files]


def _conversion(read: Callable) -> Conversion:
    table = np.zeros(_COUNT + 1, int)
    table[list(_NUMBERS)] = np.arange(1, len(CLASSES))
    return Conversion(read, table, f"0 (none) to {_COUNT}")


def _without_background(
    base: str, splits: Mapping[str, list[str]], report: Report, workers: int
) -> None:
    table = np.full(256, -1)
    table[: len(CLASSES)] = [255, *range(len(CLASSES) - 1)]
    table[255] = 255
    labels = find_files(f"{base}/{LABELS[60]}", ".png")
    jobs = jobs_to(f"{base}/{LABELS[59]}", _listed(labels, splits))
    conversion = Conversion(read_label, table, f"0 to {len(CLASSES) - 1} and 255")
    convert_labels(jobs, conversion, report, workers=workers, title="59 classes")
