"""The sets to inspect: two folders, or a registered dataset."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from dnl_d2.data.datasets.folder import SUFFIXES
from dnl_d2.data.datasets.registration import SEMANTIC
from dnl_d2.data.listing import list_folder, stems_and_files, without
from dnl_d2.errors import UsageError
from dnl_d2.validation.findings import Finding
from dnl_d2.validation.scan import Pair

# What is a picture, whether load_sem_seg_folder reads it or not.
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class LabelledSet:
    """Pairs of one set, and what its labels should hold.

    Args:
        name: how reports call the set.
        pairs: image and label paths.
        classes: names of the classes; None if nobody has told.
        ignore_label: value that is no class.
        colors: an RGB triple per class; None for made-up ones.
        folders: of images and labels, if the set is two folders.
        stems_file: lists those of the two folders that count; None where all do.
        findings: what was wrong with the list of files.
        prediction_only: no image has a label, nor needs one.
    """

    name: str
    pairs: list[Pair]
    classes: list[str] | None
    ignore_label: int = 255
    colors: list[Sequence[int]] | None = None
    folders: tuple[str, str] | None = None
    stems_file: str | None = None
    findings: list[Finding] = field(default_factory=list)
    prediction_only: bool = False


def folder_set(
    name: str,
    image_dir: str,
    label_dir: str,
    *,
    classes: list[str] | None = None,
    ignore_label: int = 255,
) -> LabelledSet:
    """Pairs the files of two folders by their stems.

    Raises:
        UsageError: a folder does not exist, or both are one.
    """
    findings: list[Finding] = []
    images = _by_stem(image_dir, "image", findings)
    labels = _by_stem(label_dir, "label", findings)
    if os.path.samefile(image_dir, label_dir):
        raise UsageError(
            f"images and labels are both in {image_dir} ({label_dir} is the same folder): give the "
            "folder of the labels"
        )
    lone_images = [images[stem] for stem in without(images, labels)]
    lone_labels = [labels[stem] for stem in without(labels, images)]
    hint = _renaming(images, labels)
    if lone_images:
        text = f"images have no label of the same stem in {label_dir}"
        findings.append(Finding("error", "image_without_label", text + hint, lone_images))
    if lone_labels:
        text = f"labels have no image of the same stem in {image_dir}"
        findings.append(Finding("error", "label_without_image", text + hint, lone_labels))
    pairs: list[Pair] = [(images[s], labels[s]) for s in sorted(images) if s in labels]
    folders = os.path.abspath(image_dir), os.path.abspath(label_dir)
    return LabelledSet(name, pairs, classes, ignore_label, folders=folders, findings=findings)


def registered_set(name: str, *, for_training: bool = True) -> LabelledSet:
    """The pairs of a dataset that detectron2 knows.

    A dataset that cannot be loaded gives the reason as a finding, and the pairs that its two
    folders still hold. One that is not for training may do without any label.

    Raises:
        UsageError: the name is not registered, or the dataset is for another task.
    """
    if name not in DatasetCatalog.list():
        known = ", ".join(n for n in DatasetCatalog.list() if _is_sem_seg(n))
        raise UsageError(f"dataset {name!r} is not registered; there are {known}")
    meta = MetadataCatalog.get(name)
    if not _is_sem_seg(name):
        raise UsageError(
            f"dataset {name} is not for semantic segmentation: its metadata need the "
            "evaluator_type sem_seg; sets for detection are checked by tools/train_net.py "
            "before it starts"
        )
    findings: list[Finding] = []
    try:
        records = DatasetCatalog.get(name)
        pairs = [(record["file_name"], record.get("sem_seg_file_name")) for record in records]
    except (UsageError, OSError, AssertionError) as error:
        findings.append(Finding("error", "cannot_load", " ".join(str(error).split())))
        pairs = _remaining_pairs(meta)
    prediction_only = not for_training and bool(pairs) and all(label is None for _, label in pairs)
    if prediction_only:
        findings.append(Finding("warning", "prediction_only", "no labels: only for prediction"))
    return LabelledSet(
        name,
        pairs,
        meta.get("stuff_classes", None),
        meta.get("ignore_label", 255),
        meta.get("stuff_colors", None),
        findings=findings,
        prediction_only=prediction_only,
    )


def _is_sem_seg(name: str) -> bool:
    return MetadataCatalog.get(name).get("evaluator_type", None) in SEMANTIC


def _remaining_pairs(meta: Metadata) -> list[Pair]:
    roots = meta.get("image_root", ""), meta.get("sem_seg_root", "")
    if not all(root and os.path.isdir(root) for root in roots):
        return []
    return folder_set(meta.name, *roots).pairs


def _by_stem(folder: str, kind: str, findings: list[Finding]) -> dict[str, str]:
    if not os.path.isdir(folder):
        raise UsageError(f"{kind} folder {folder} does not exist: give the folder of {kind}s")
    files: dict[str, str] = {}
    doubled, unread = [], []
    for stem, path in stems_and_files(folder, _PICTURES):
        if not path.lower().endswith(SUFFIXES[kind]):
            unread.append(path)
        if stem in files:
            doubled.append(path)
        else:
            files[stem] = path
    kinds = " or ".join(SUFFIXES[kind])
    if unread:
        text = f"{kind}s are not {kinds}: convert them"
        text += " (a class id must not pass through JPEG)" if kind == "label" else ""
        findings.append(Finding("error", f"{kind}_format", text, unread))
    if doubled:
        text = f"{kind}s have the stem of another one in {folder}: keep one file per stem"
        findings.append(Finding("error", f"two_{kind}s_of_a_stem", text, doubled))
    if not files:
        folders = filter(os.path.isdir, (os.path.join(folder, e) for e in list_folder(folder)))
        first = next(folders, None)
        where = f"; its subfolders are not read: {first}" if first else ""
        text = f"{kind} folder {folder} holds no {kinds}{where}"
        findings.append(Finding("error", f"no_{kind}s", text))
    return files


def _renaming(images: dict[str, str], labels: dict[str, str]) -> str:
    """A hint if most labels are named after an image plus the same ending."""
    endings = Counter(
        stem[cut:] for stem in labels for cut in range(1, len(stem)) if stem[:cut] in images
    )
    if not endings:
        return ""
    ending, count = endings.most_common(1)[0]
    if 2 * count < len(labels):
        return ""
    return f" (labels have {ending!r} after the image's stem: take it off their names)"
