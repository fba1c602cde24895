"""What can be found wrong before training starts."""

import os
from collections.abc import Mapping, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from dnl_d2.data.check import check_sem_seg_dataset
from dnl_d2.data.datasets.registration import SEMANTIC
from dnl_d2.errors import UsageError


def check_datasets(
    names: Sequence[str], *, num_classes: int, max_label_files: int, what: str, test: bool = False
) -> None:
    """Checks semantic-segmentation datasets against the model that will read them.

    Args:
        names: registered datasets; those of other tasks are left to Detectron2's own checks.
        num_classes: classes that the model predicts.
        max_label_files: how many labels per dataset to read; 0 for none.
        what: where the names come from, for the message.
        test: whether they are predicted only, for which a split needs no labels.

    Raises:
        UsageError: no dataset, an unregistered name, another number of classes, or what
            :func:`dnl_d2.data.check.check_sem_seg_dataset` finds.
    """
    if not names:
        raise UsageError(f"{what} names no dataset")
    for name in names:
        if name not in DatasetCatalog.list():
            close = ", ".join(n for n in DatasetCatalog.list() if "sem_seg" in n)
            raise UsageError(f"{what}: dataset {name!r} is not registered; there are {close}")
        meta = MetadataCatalog.get(name)
        try:
            records = DatasetCatalog.get(name)
        except (FileNotFoundError, AssertionError) as error:
            folder = os.environ.get("DETECTRON2_DATASETS", "datasets")
            raise UsageError(
                f"{what}: dataset {name} is not in $DETECTRON2_DATASETS={folder}: "
                f"{' '.join(str(error).split())}"
            ) from error
        if meta.get("evaluator_type", None) not in SEMANTIC:
            continue
        if len(meta.stuff_classes) != num_classes:
            raise UsageError(
                f"{what}: {name} has {len(meta.stuff_classes)} classes, "
                f"but the model predicts num_classes={num_classes}"
            )
        if max_label_files > 0 and not (test and _is_unlabelled(records)):
            check_sem_seg_dataset(
                records,
                num_classes=num_classes,
                ignore_label=meta.get("ignore_label", 255),
                name=name,
                max_label_files=max_label_files,
            )


def check_splits(
    train: Mapping[str, Sequence[str]],
    test: Mapping[str, Sequence[str]],
    *,
    eval_only: bool,
    num_classes: int,
    max_label_files: int,
) -> None:
    """Checks what a run will read: training needs no test set, evaluation no training set.

    To be called in all processes; one on each machine reads the files, and the others wait.

    Args:
        train: config key to dataset names.
        test: the same for evaluation.
        eval_only: whether nothing is trained.
        num_classes, max_label_files: see :func:`check_datasets`.

    Raises:
        UsageError: see :func:`check_datasets`.
    """
    used = test if eval_only else {**train, **{k: names for k, names in test.items() if names}}
    if comm.get_local_rank() == 0:  # thousands of files: once on each machine
        for key, names in used.items():
            check_datasets(
                names,
                num_classes=num_classes,
                max_label_files=max_label_files,
                what=key,
                test=key in test,
            )
    comm.synchronize()


def _is_unlabelled(records: Sequence[Mapping]) -> bool:
    """Whether a split has no labels at all, such as the test split of Cityscapes."""
    return bool(records) and not any("sem_seg_file_name" in record for record in records)
