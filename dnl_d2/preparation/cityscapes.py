"""Cityscapes: ``*_gtFine_labelIds.png``, or where it is missing ``*_gtFine_polygons.json``, ->
``*_gtFine_labelTrainIds.png`` with the train ids of cityscapesscripts.
"""

import os

import numpy as np

from dnl_d2.data.datasets.cityscapes import IMAGE_SUFFIX, LABEL_SUFFIX
from dnl_d2.data.labels import read_label
from dnl_d2.data.listing import find_files_by_city, require_folder
from dnl_d2.errors import UsageError
from dnl_d2.files import require_regular
from dnl_d2.preparation.archives import compare_counts, lacking
from dnl_d2.preparation.label_conversion import Conversion, Report, convert_labels, jobs_to

SPLITS = ("train", "val", "test")
OFFICIAL = {"train": 2975, "val": 500}

_IDS = "_gtFine_labelIds.png"
_POLYGONS = "_gtFine_polygons.json"
_GROUP = "group"


def prepare_cityscapes(root: str, *, workers: int) -> Report:
    """Prepares the label maps of all splits that are there (in those of test nothing is annotated).

    Args:
        root: the folder that holds ``cityscapes``.
        workers: number of threads.

    Raises:
        UsageError: a folder or cityscapesscripts is missing, or an output cannot be written.
    """
    base = os.path.join(root, "cityscapes")
    hint = f"expected {base}/gtFine/{{train,val,test}}/CITY as gtFine_trainvaltest.zip unpacks"
    require_folder(os.path.join(base, "gtFine"), hint)
    jobs, report, counts = [], Report(), {}
    for split in SPLITS:
        folders = [os.path.join(base, kind, split) for kind in ("leftImg8bit", "gtFine")]
        images = find_files_by_city(folders[0], IMAGE_SUFFIX)
        sources = find_files_by_city(folders[1], _POLYGONS) | find_files_by_city(folders[1], _IDS)
        counts[split] = len(sources)
        jobs += jobs_to(folders[1], sources.items(), LABEL_SUFFIX)
        if split in OFFICIAL:
            report.problems += lacking(
                images, sources, f"images in {folders[0]} have no {_IDS} or {_POLYGONS}"
            )
            report.problems += lacking(sources, images, f"labels in {folders[1]} have no image")
    if not jobs:
        raise UsageError(f"folder {base}/gtFine holds no */*/*{_IDS} or *{_POLYGONS}: {hint}")
    report.notes += compare_counts(counts, OFFICIAL)
    convert_labels(jobs, _conversion(), report, workers=workers, title="cityscapes")
    return report


def read_label_ids(path: str) -> np.ndarray:
    """Reads a label map of Cityscapes ids, or draws it from polygons.

    Args:
        path: ``*_gtFine_labelIds.png`` or ``*_gtFine_polygons.json``.

    Returns:
        (H, W) ids.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    return _draw_polygons(path) if path.endswith(_POLYGONS) else read_label(path)


def _conversion() -> Conversion:
    try:
        from cityscapesscripts.helpers.labels import labels
    except ImportError as error:
        raise UsageError(
            f"Cityscapes is prepared with cityscapesScripts ({error}): install it"
        ) from error
    drawn = [label for label in labels if label.id >= 0]  # a license plate is part of its car
    table = np.full(max(label.id for label in drawn) + 1, -1)
    for label in drawn:
        table[label.id] = label.trainId
    return Conversion(read_label_ids, table, f"label ids 0 to {len(table) - 1}")


def _draw_polygons(path: str) -> np.ndarray:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.helpers.labels import name2label
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    annotation = Annotation()
    try:
        require_regular(path)
        with open(path, encoding="utf-8") as file:
            annotation.fromJsonText(file.read())
        # cityscapesscripts ends the process over a name that it does not know.
        unknown = {item.label for item in annotation.objects if not item.deleted}
        unknown = {name for name in unknown if name.removesuffix(_GROUP) not in name2label}
        picture = None if unknown - set(name2label) else createLabelImage(annotation, "ids")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"label {path} cannot be read ({reason}): unpack it again") from error
    if picture is None:
        raise UsageError(
            f"label {path} names the class {min(unknown)!r}, which Cityscapes has not: put the "
            "original file in its place"
        )
    return np.asarray(picture)
