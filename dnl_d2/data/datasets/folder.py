"""Semantic segmentation from two folders: images, and label PNGs of the same stem, or none."""

import os
from collections.abc import Sequence

from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.records import make_records
from dnl_d2.data.datasets.registration import register_dataset
from dnl_d2.data.listing import count_and_name, read_lines, stems_and_files, without
from dnl_d2.errors import UsageError

SUFFIXES = {"image": (".jpg", ".jpeg", ".png"), "label": (".png",)}


def load_sem_seg_folder(
    image_dir: str, label_dir: str | None = None, stems_file: str | None = None
) -> list[dict]:
    """Lists the pairs of a dataset kept as ``image_dir/*.{jpg,jpeg,png}`` + ``label_dir/*.png``.

    Args:
        image_dir: folder of images.
        label_dir: folder of label maps, one per image and with the same stem; None: the images
            are only to be predicted.
        stems_file: text file of the stems that count, one a line; None for all.

    Returns:
        detectron2 dataset dicts with file_name, sem_seg_file_name (if there are labels), height
        and width (of the stored image), sorted by stem.

    Raises:
        UsageError: a folder is missing or empty, a file has no counterpart or two of them, a stem
            of the list has no file, or an image header cannot be read.
    """
    beside = "" if label_dir is None else f" and labels {label_dir}/*.png of the same stems"
    expected = (
        f"expected images {image_dir}/*.{{jpg,jpeg,png}}{beside}; registered datasets are looked "
        "for under $DETECTRON2_DATASETS"
    )
    images = _listed(_files_by_stem(image_dir, "image", expected), stems_file, image_dir)
    if label_dir is None:
        return make_records([images[stem] for stem in sorted(images)], None)
    labels = _listed(_files_by_stem(label_dir, "label", expected), stems_file, label_dir)
    _require_counterparts(images, labels, f"without a label in {label_dir}")
    _require_counterparts(labels, images, f"without an image in {image_dir}")
    stems = sorted(images)
    return make_records([images[stem] for stem in stems], [labels[stem] for stem in stems])


def register_sem_seg_folder(
    name: str,
    image_dir: str,
    label_dir: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    colors: Sequence[Sequence[int]] | None = None,
    ignore_label: int = 255,
    stems_file: str | None = None,
) -> None:
    """Registers a dataset of two folders, or of one of images that are only to be predicted.

    A second call replaces the first.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        image_dir: folder of images, absolute or relative to ``$DETECTRON2_DATASETS``, which is
            read when the dataset is loaded.
        label_dir: folder of label maps, likewise; None for a dataset without labels.
        classes: names of the classes 0, 1, ...; without labels they need not be known.
        colors: an RGB triple per class for pictures.
        ignore_label: the label value that is no class; 255 is ignored as well.
        stems_file: text file of the stems that count, one a line; relative paths likewise.

    Raises:
        UsageError: labels without ``classes``; ``colors`` and ``classes`` differ in number; or the
            name is another's, Detectron2's for instance.
    """
    if label_dir is not None and classes is None:
        raise UsageError(f"dataset {name}: it has labels but no classes, give their names")
    if colors is not None and len(colors) != len(classes or ()):
        raise UsageError(
            f"dataset {name}: {len(classes or ())} classes but {len(colors)} colors, give one per "
            "class"
        )
    paths = {"image_root": image_dir, "sem_seg_root": label_dir, "stems_file": stems_file}
    register_dataset(
        name,
        lambda image_root, sem_seg_root=None, stems_file=None: load_sem_seg_folder(
            image_root, sem_seg_root, stems_file
        ),
        {key: path for key, path in paths.items() if path is not None},
        classes=classes,
        colors=colors,
        ignore_label=ignore_label,
    )


def _files_by_stem(folder: str, kind: str, expected: str) -> dict[str, str]:
    if not PathManager.isdir(folder):
        raise UsageError(f"{kind} folder {folder} does not exist: {expected}")
    files: dict[str, str] = {}
    for stem, path in stems_and_files(folder, SUFFIXES[kind]):
        if stem in files:
            raise UsageError(
                f"{kind} folder {folder} holds both {os.path.basename(files[stem])} and "
                f"{os.path.basename(path)}: keep one file per stem"
            )
        files[stem] = path
    if not files:
        raise UsageError(f"{kind} folder {folder} holds no {kind}s: {expected}")
    return files


def _read_stems(path: str) -> list[str]:
    try:
        stems = [line for line in read_lines(path) if line]
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"the list of stems {path} cannot be read ({reason}): give a text file with one a line"
        ) from error
    if not stems:
        raise UsageError(f"the list of stems {path} is empty")
    return stems


def _listed(files: dict[str, str], stems_file: str | None, folder: str) -> dict[str, str]:
    """Those of ``files`` that the list names, all without a list."""
    if stems_file is None:
        return files
    stems = _read_stems(stems_file)
    missing = without(stems, files)
    if missing:
        raise UsageError(
            count_and_name(missing, len(stems), f"stems of {stems_file} have no file in {folder}")
        )
    return {stem: files[stem] for stem in stems}


def _require_counterparts(files: dict[str, str], others: dict[str, str], lack: str) -> None:
    alone = [files[stem] for stem in without(sorted(files), others)]
    if alone:
        raise UsageError(
            f"{count_and_name(alone, len(files), f'files {lack}')}; add the missing files (same "
            "stem) or remove these"
        )
