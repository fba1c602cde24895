"""PASCAL VOC 2012 and SBD: ``cls/*.mat`` -> ``SegmentationClassAug/*.png``, and ``trainaug.txt``.

The labels of VOC itself are read as they are: PNGs whose palette indices are the classes.
"""

import os

import numpy as np

from dnl_d2.data.datasets.records import read_ids
from dnl_d2.data.datasets.voc import CLASSES, FOLDER, colormap
from dnl_d2.data.listing import find_files, require_folder
from dnl_d2.errors import UsageError
from dnl_d2.preparation.archives import compare_counts, lacking
from dnl_d2.preparation.label_conversion import Conversion, Report, convert_labels, jobs_to
from dnl_d2.preparation.label_files import write_lines
from dnl_d2.preparation.mat import mat_loader, read_mat

OFFICIAL = {"trainaug": 10582}

_CONVERSION = Conversion(
    read=lambda path: read_mat(path, "GTcls", "Segmentation"),
    table=np.arange(len(CLASSES)),
    expected=f"0 (background) to {len(CLASSES) - 1}",
    colors=colormap(256),
)

# Where SBD may lie: as it unpacks, beside VOCdevkit or in it, and where mmsegmentation has it.
_SBD = ("benchmark_RELEASE", "VOCdevkit/benchmark_RELEASE", "VOCdevkit/VOCaug")


def prepare_voc(root: str, *, workers: int) -> Report:
    """Prepares the labels of SBD and the list of ``trainaug``.

    The list has the training pictures of VOC and all of SBD but the validation pictures of VOC; a
    picture that VOC itself has a label of is not converted.

    Args:
        root: the folder that holds ``VOCdevkit`` and ``benchmark_RELEASE``.
        workers: number of threads.

    Raises:
        UsageError: a folder or a list is missing, SciPy is, or an output cannot be written.
    """
    base = os.path.join(root, FOLDER)
    hint = f"expected {base} as VOCtrainval_11-May-2012.tar unpacks"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        require_folder(os.path.join(base, folder), hint)
    sbd = _find_sbd(root)
    mat_loader()  # says now, rather than of every file, that SciPy is missing
    lists = f"{base}/ImageSets/Segmentation"
    train, val = _read_lists(lists, hint)
    theirs = set().union(*_read_lists(sbd, f"expected {sbd} as benchmark.tgz of SBD unpacks"))
    trainaug = sorted((train | theirs) - val)
    own = find_files(f"{base}/SegmentationClass", ".png")
    mats = find_files(f"{sbd}/cls", ".mat")
    wanted = [key for key in trainaug if key not in own]
    report = Report(notes=compare_counts({"trainaug": len(trainaug)}, OFFICIAL))
    report.problems += lacking(
        sorted(train | val), own, f"pictures of {lists} have no label in {base}/SegmentationClass"
    )
    report.problems += lacking(
        [key for key in wanted if key not in train], mats, f"pictures have no label in {sbd}/cls"
    )
    report.problems += lacking(
        sorted(val.union(trainaug)),
        find_files(f"{base}/JPEGImages", ".jpg"),
        f"pictures have no image in {base}/JPEGImages",
    )
    there = [(key, mats[key]) for key in wanted if key in mats]
    jobs = jobs_to(f"{base}/SegmentationClassAug", there)
    convert_labels(jobs, _CONVERSION, report, workers=workers, title="voc")
    write_lines(f"{lists}/trainaug.txt", trainaug)
    return report


def _read_lists(folder: str, hint: str) -> tuple[set[str], set[str]]:
    """The pictures of train.txt and of val.txt."""
    return set(read_ids(f"{folder}/train.txt", hint)), set(read_ids(f"{folder}/val.txt", hint))


def _find_sbd(root: str) -> str:
    for folder in _SBD:
        dataset = os.path.join(root, folder, "dataset")
        if os.path.isdir(os.path.join(dataset, "cls")):
            return dataset
    raise UsageError(
        f"folder {root}/{_SBD[0]}/dataset/cls does not exist: expected {root}/{_SBD[0]} as "
        "benchmark.tgz of SBD unpacks (only trainaug needs it; train and val need no preparation)"
    )
