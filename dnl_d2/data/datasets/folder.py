"""Semantic segmentation from two folders: images, and label PNGs of the same stem."""

import os
from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from dnl_d2.data.images import image_size
from dnl_d2.errors import UsageError

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_LABEL_SUFFIXES = (".png",)
_NAMED = 3  # how many offending files a message lists


def dataset_path(path: str) -> str:
    """Returns ``path``, taken relative to ``$DETECTRON2_DATASETS`` unless it is absolute."""
    return os.path.join(os.environ.get("DETECTRON2_DATASETS", "datasets"), path)


def load_sem_seg_folder(image_dir: str, label_dir: str) -> list[dict]:
    """Lists the pairs of a dataset kept as ``image_dir/*.{jpg,jpeg,png}`` + ``label_dir/*.png``.

    Args:
        image_dir: folder of images.
        label_dir: folder of label maps, one per image and with the same stem.

    Returns:
        detectron2 dataset dicts with file_name, sem_seg_file_name, height and width (of the
        stored image), sorted by stem.

    Raises:
        UsageError: a folder is missing or empty, a file has no counterpart or two of them, or an
            image header cannot be read.
    """
    images = _files_by_stem(image_dir, _IMAGE_SUFFIXES, "image", (image_dir, label_dir))
    labels = _files_by_stem(label_dir, _LABEL_SUFFIXES, "label", (image_dir, label_dir))
    _require_counterparts(images, labels, f"without a label in {label_dir}")
    _require_counterparts(labels, images, f"without an image in {image_dir}")
    records = []
    for stem in sorted(images):
        height, width = image_size(images[stem])
        record = {"file_name": images[stem], "sem_seg_file_name": labels[stem]}
        records.append({**record, "height": height, "width": width})
    return records


def register_sem_seg_folder(
    name: str,
    image_dir: str,
    label_dir: str,
    *,
    classes: Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    ignore_label: int = 255,
) -> None:
    """Registers a dataset of two folders with detectron2; a second call replaces the first.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        image_dir: folder of images, absolute or relative to ``$DETECTRON2_DATASETS``, which is
            read when the dataset is loaded.
        label_dir: folder of label maps, likewise.
        classes: names of the classes 0, 1, ...
        colors: an RGB triple per class for pictures.
        ignore_label: the label value that is no class; 255 is ignored as well.

    Raises:
        UsageError: ``colors`` and ``classes`` differ in number.
    """
    if colors is not None and len(colors) != len(classes):
        raise UsageError(
            f"dataset {name}: {len(classes)} classes but {len(colors)} colors, give one per class"
        )
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    meta = MetadataCatalog.get(name)
    meta.set(stuff_classes=list(classes), ignore_label=ignore_label, evaluator_type="sem_seg")
    if colors is not None:
        meta.set(stuff_colors=[tuple(color) for color in colors])

    def set_roots() -> tuple[str, str]:
        roots = dataset_path(image_dir), dataset_path(label_dir)
        # Past Metadata's write-once check: $DETECTRON2_DATASETS may change between loads.
        vars(meta).update(image_root=roots[0], sem_seg_root=roots[1])
        return roots

    set_roots()
    DatasetCatalog.register(name, lambda: load_sem_seg_folder(*set_roots()))


def _files_by_stem(
    folder: str, suffixes: tuple[str, ...], kind: str, layout: tuple[str, str]
) -> dict[str, str]:
    expected = (
        f"expected images {layout[0]}/*.{{jpg,jpeg,png}} and labels {layout[1]}/*.png of the same "
        "stems; registered datasets are looked for under $DETECTRON2_DATASETS"
    )
    if not PathManager.isdir(folder):
        raise UsageError(f"{kind} folder {folder} does not exist: {expected}")
    files: dict[str, str] = {}
    for entry in sorted(PathManager.ls(folder)):
        stem, suffix = os.path.splitext(entry)
        if entry.startswith(".") or suffix.lower() not in suffixes:
            continue
        if stem in files:
            raise UsageError(
                f"{kind} folder {folder} holds both {os.path.basename(files[stem])} and {entry}: "
                "keep one file per stem"
            )
        files[stem] = os.path.join(folder, entry)
    if not files:
        raise UsageError(f"{kind} folder {folder} holds no {kind}s: {expected}")
    return files


def _require_counterparts(files: dict[str, str], others: dict[str, str], lack: str) -> None:
    alone = [files[stem] for stem in sorted(files) if stem not in others]
    if alone:
        more = ", ..." if len(alone) > _NAMED else ""
        raise UsageError(
            f"{len(alone)} of {len(files)} files {lack}: {', '.join(alone[:_NAMED])}{more}; "
            "add the missing files (same stem) or remove these"
        )
