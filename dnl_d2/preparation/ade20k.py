"""ADE20K: ``annotations`` (0 is other, 1 to 150) -> ``annotations_detectron2`` (255, 0 to 149)."""

import os

import numpy as np

from dnl_d2.data.datasets.ade20k import CLASS_COLORS, FOLDER, SPLITS
from dnl_d2.data.labels import read_label
from dnl_d2.data.listing import find_files, require_folder
from dnl_d2.errors import UsageError
from dnl_d2.preparation.archives import compare_counts, lacking
from dnl_d2.preparation.label_conversion import Conversion, Report, convert_labels, jobs_to

OFFICIAL = {"training": 20210, "validation": 2000}

_CONVERSION = Conversion(
    read=read_label,
    table=np.array([255, *range(len(CLASS_COLORS))]),
    expected=f"0 (other) to {len(CLASS_COLORS)}",
)


def prepare_ade20k(root: str, *, workers: int) -> Report:
    """Prepares the label maps of both splits.

    Args:
        root: the folder that holds ``ADEChallengeData2016``.
        workers: number of threads.

    Raises:
        UsageError: a folder is missing, or an output cannot be written.
    """
    base = os.path.join(root, FOLDER)
    hint = f"expected {base}/{{images,annotations}}/{{training,validation}} as the archive unpacks"
    require_folder(os.path.join(base, "annotations"), hint)
    jobs, report, counts = [], Report(), {}
    for split in SPLITS.values():
        folders = [os.path.join(base, kind, split) for kind in ("images", "annotations")]
        images, labels = find_files(folders[0], ".jpg"), find_files(folders[1], ".png")
        report.problems += lacking(images, labels, f"images in {folders[0]} have no annotation")
        report.problems += lacking(labels, images, f"annotations in {folders[1]} have no image")
        counts[split] = len(labels)
        jobs += jobs_to(os.path.join(base, "annotations_detectron2", split), labels.items())
    if not jobs:
        raise UsageError(f"folder {base}/annotations holds no */*.png: {hint}")
    report.notes += compare_counts(counts, OFFICIAL)
    convert_labels(jobs, _CONVERSION, report, workers=workers, title="ade20k")
    return report
