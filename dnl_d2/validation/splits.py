"""What can be found wrong before training starts."""

import difflib
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.utils import comm

from dnl_d2.compat import lvis_evaluation
from dnl_d2.data.datasets.cityscapes_instances import list_cityscapes_instances
from dnl_d2.errors import UsageError
from dnl_d2.validation.findings import reordered
from dnl_d2.validation.instances import check_class_count, check_coco_dataset
from dnl_d2.validation.keypoints import check_keypoints
from dnl_d2.validation.label_maps import (
    ReadLabels,
    check_sem_seg_dataset,
    judge_training_labels,
)
from dnl_d2.validation.task import Task

_logger = logging.getLogger(__name__)
_LABELS = "sem_seg_file_name"
_WRITTEN = ("cityscapes_sem_seg",)  # whose evaluator writes a submission where labels are missing
_LISTED = 6  # how many classes a message lists


@dataclass(frozen=True)
class _Split:
    """A dataset and where it is named."""

    name: str
    what: str
    test: bool
    max_files: int
    read: list[ReadLabels]  # labels of training sets, which are judged together

    @property
    def meta(self) -> Metadata:
        return MetadataCatalog.get(self.name)

    def load(self) -> list[dict]:
        try:
            return DatasetCatalog.get(self.name)
        except (FileNotFoundError, NotADirectoryError, AssertionError) as error:
            folder = os.environ.get("DETECTRON2_DATASETS", "datasets")
            raise UsageError(
                f"{self.what}: dataset {self.name} is not in $DETECTRON2_DATASETS={folder}: "
                f"{' '.join(str(error).split())}"
            ) from error


def check_datasets(
    names: Sequence[str], *, task: Task, max_files: int, what: str, test: bool = False
) -> dict[str, list[str]]:
    """Checks datasets against the model that will read them.

    Args:
        names: registered datasets; those of other tasks are only loaded.
        task: what the model reads.
        max_files: how many labels (for detectors: headers of images) per dataset to read; 0: none.
        what: where the names come from, for the message.
        test: whether they are for evaluation; Cityscapes' may then have no labels.

    Returns:
        By dataset, the classes of those that the model reads.

    Raises:
        UsageError: no dataset, an unregistered name, another number of classes, or what
            :func:`dnl_d2.validation.label_maps.check_sem_seg_dataset`,
            :func:`dnl_d2.validation.label_maps.judge_training_labels` or
            :func:`dnl_d2.validation.instances.check_coco_dataset` finds.
    """
    if not names:
        raise UsageError(f"{what} names no dataset")
    detected: dict[str, list[str]] = {}
    read: list[ReadLabels] = []
    for name in names:
        if name not in DatasetCatalog.list():
            close = difflib.get_close_matches(name, DatasetCatalog.list(), n=6, cutoff=0.3)
            raise UsageError(
                f"{what}: dataset {name!r} is not registered; the closest names are "
                f"{', '.join(close) or 'none'}"
            )
        split = _Split(name, what, test, max_files, read)
        check = _CHECKS.get(split.meta.get("evaluator_type", None), _only_load)
        classes = check(split, task)
        if classes:
            detected[name] = classes
    if read:
        judge_training_labels(read)
    return detected


def check_splits(
    train: Mapping[str, Sequence[str]],
    test: Mapping[str, Sequence[str]],
    *,
    eval_only: bool,
    task: Task,
    max_files: int,
) -> None:
    """Checks what a run will read: training needs no test set, evaluation no training set.

    To be called in all processes; one on each machine reads the files, and the others wait.

    Args:
        train: config key to dataset names.
        test: the same for evaluation.
        eval_only: whether nothing is trained.
        task, max_files: see :func:`check_datasets`.

    Raises:
        UsageError: see :func:`check_datasets` and
            :func:`dnl_d2.validation.keypoints.check_keypoints`; or two datasets number their
            classes differently.
    """
    used = test if eval_only else {**train, **{k: names for k, names in test.items() if names}}
    if comm.get_local_rank() == 0:  # thousands of files: once on each machine
        classes: dict[str, list[str]] = {}
        for key, names in used.items():
            classes |= check_datasets(
                names, task=task, max_files=max_files, what=key, test=key in test
            )
        _require_same_classes(classes)
        trained, tested = (
            [name for key, names in used.items() if key in keys for name in names]
            for keys in (train, test)
        )
        _tell_of_shared_files(trained, tested)
        if task.instances and task.instances.keypoints:
            check_keypoints(trained, tested, task.instances.keypoints)
    comm.synchronize()


def _tell_of_shared_files(train: Sequence[str], test: Sequence[str]) -> None:
    trained = {_files_of(name): name for name in train}
    for name in test:
        other = trained.get(_files_of(name))
        if other is not None:
            _logger.warning(
                "dataset %s, to evaluate on, has the files of %s, to train with: its figures will "
                "flatter", name, other,
            )  # fmt: skip


def _files_of(name: str) -> tuple:
    meta = MetadataCatalog.get(name)
    keys = ("json_file", "image_root", "stems_file", "sem_seg_root")
    files = tuple(meta.get(key, None) for key in keys)
    return files if any(files) else (name,)


def _require_same_classes(classes: Mapping[str, Sequence[str]]) -> None:
    """A class is a number: another order gives wrong figures without a word.

    Other names for all of them may be another spelling, which is only logged.
    """
    if not classes:
        return
    first, *others = classes
    for other in others:
        if classes[other] == classes[first]:
            continue
        if not reordered(classes[first], classes[other]):
            _logger.warning(
                "datasets %s and %s name their classes differently; they are taken for the same, "
                "number by number", first, other,
            )  # fmt: skip
            continue
        pairs = itertools.zip_longest(classes[first], classes[other])
        start = next(number for number, (a, b) in enumerate(pairs) if a != b)
        told = [
            ", ".join(names[start : start + _LISTED])
            + (", ..." if names[start + _LISTED :] else "")
            for names in (classes[first], classes[other])
        ]
        raise UsageError(
            f"datasets {first} and {other} differ in their classes (categories by id) from number "
            f"{start} on: {told[0] or 'none'}; and {told[1] or 'none'}: give both the same names "
            "in the same order"
        )


def _only_load(split: _Split, task: Task) -> None:
    split.load()


def _check_sem_seg(split: _Split, task: Task) -> list[str] | None:
    if task.only_detects:
        raise UsageError(
            f"{split.what}: dataset {split.name} has label maps, the model detects objects: give "
            "it a dataset with boxes, or take a config for semantic segmentation"
        )
    records = split.load()
    if task.num_classes is None:
        return None
    labelled = _any_has(_LABELS, records)
    if not labelled and not (split.test and split.meta.evaluator_type in _WRITTEN):
        raise UsageError(
            f"{split.what}: dataset {split.name} has no labels, so that it can only be predicted: "
            "give them (LABELS of DATASETS.FOLDERS, label_dir of register_sem_seg_folder) or take "
            "a dataset that has some"
        )
    classes = split.meta.get("stuff_classes", None)
    if classes is None:
        raise UsageError(
            f"{split.what}: dataset {split.name} has no class names: set stuff_classes of "
            f"MetadataCatalog.get({split.name!r})"
        )
    if task.instances and not split.test and not _any_has("annotations", records):
        raise UsageError(
            f"{split.what}: dataset {split.name} has label maps, no boxes: the model learns both"
        )
    if len(classes) != task.num_classes:
        raise UsageError(
            f"{split.what}: {split.name} has {len(classes)} classes, "
            f"but the model predicts num_classes={task.num_classes}"
        )
    stated = split.meta.get("ignore_label", None)
    if not split.test and None not in (task.ignore_label, stated) and task.ignore_label != stated:
        raise UsageError(
            f"{task.ignore_key}={task.ignore_label}, but {split.name} ignores {stated}"
        )
    if split.max_files > 0 and labelled:
        read = check_sem_seg_dataset(
            records,
            num_classes=task.num_classes,
            ignore_label=split.meta.get("ignore_label", 255),
            name=split.name,
            test=split.test,
            max_label_files=split.max_files,
        )
        if not split.test:
            split.read.append(read)
    return None if task.instances else classes  # what does both has things to compare


def _any_has(key: str, records: Sequence[Mapping]) -> bool:
    """The test split of Cityscapes, for instance, has no labels at all."""
    return any(key in record for record in records)


def _require_label_maps(split: _Split, task: Task) -> None:
    """For a dataset of objects: what segments needs label maps, what does both learns from both."""
    if task.num_classes is None or (task.instances and split.test):
        return
    if not _any_has(_LABELS, split.load()):
        both = ": the model learns both" if task.instances else ""
        hint = "" if both else ", which the model needs: take a dataset of label maps or a detector"
        raise UsageError(
            f"{split.what}: dataset {split.name} has boxes, no label maps{both or hint}"
        )


def _check_coco(split: _Split, task: Task, *, image_key: str = "file_name") -> list[str] | None:
    meta = split.meta
    set_paths = meta.get("set_paths", None)
    paths = set_paths() if set_paths else {}  # $DETECTRON2_DATASETS may have changed
    if not os.path.isfile(meta.get("json_file", "")):
        split.load()  # which sets the file, says how to get it, or has none
    _require_label_maps(split, task)
    instances, classes = task.instances, meta.get("thing_classes", None)
    if instances is None:
        return None
    if classes:  # a loader of one's own may leave out some categories of the file
        check_class_count(len(classes), f"dataset {split.name}", instances)
        instances = replace(instances, num_classes=None)
    if meta.get("json_file", None):
        of_file = check_coco_dataset(
            split.name,
            paths.get("json_file", meta.json_file),
            meta.get("image_root", None),
            task=instances,
            test=split.test,
            max_image_files=split.max_files,
            image_key=image_key,
            own_loader=set_paths is not None,
        )
        return classes or of_file
    return classes


def _check_lvis(split: _Split, task: Task) -> list[str] | None:
    lvis_evaluation()
    return _check_coco(split, task, image_key="coco_url")


def _check_cityscapes_instances(split: _Split, task: Task) -> list[str] | None:
    """Looks for the files only: to read all labels takes minutes."""
    meta, instances = split.meta, task.instances
    meta.get("set_paths", lambda: None)()
    if not split.test:
        list_cityscapes_instances(meta.image_dir, meta.gt_dir)
    _require_label_maps(split, task)
    if instances is None:
        return None
    what = f"dataset {split.name}"
    check_class_count(len(meta.thing_classes), what, instances)
    pixels = meta.get("mask_format", "") == "bitmask"  # Detectron2's own dataset has polygons
    if pixels and not split.test and instances.masks and instances.mask_format != "bitmask":
        raise UsageError(f"{what} has masks of pixels: set {instances.format_key} to bitmask")
    return meta.thing_classes


_CHECKS: dict[str | None, Callable[..., list[str] | None]] = {
    "sem_seg": _check_sem_seg,
    "cityscapes_sem_seg": _check_sem_seg,
    "coco": _check_coco,
    "lvis": _check_lvis,
    "cityscapes_instance": _check_cityscapes_instances,
}
