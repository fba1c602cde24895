"""Registering a segmentation dataset with Detectron2."""

import os
from collections.abc import Callable, Mapping, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

# The evaluator_type of datasets for semantic segmentation.
SEMANTIC = ("sem_seg", "cityscapes_sem_seg")


def dataset_path(path: str) -> str:
    """Returns ``path``, taken relative to ``$DETECTRON2_DATASETS`` unless it is absolute."""
    root = os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    return os.path.join(root, path)


def register_dataset(
    name: str,
    load: Callable[..., list[dict]],
    roots: Mapping[str, str],
    *,
    classes: Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    ignore_label: int = 255,
    evaluator_type: str = "sem_seg",
) -> None:
    """Registers a dataset, in place of another of that name (Detectron2 brings some of them).

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        load: returns the records; called with ``roots`` as keywords.
        roots: folders by their name in the metadata, relative to ``$DETECTRON2_DATASETS``, which is
            read when the dataset is loaded.
        classes: names of the classes 0, 1, ...
        colors: an RGB triple per class for pictures.
        ignore_label: the label value that is no class.
        evaluator_type: key of ``dnl_d2.evaluation.build.EVALUATORS``.
    """
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    meta = MetadataCatalog.get(name)
    meta.set(stuff_classes=list(classes), ignore_label=ignore_label, evaluator_type=evaluator_type)
    if colors is not None:
        meta.set(stuff_colors=[tuple(color) for color in colors])

    def set_roots() -> dict[str, str]:
        paths = {key: dataset_path(path) for key, path in roots.items()}
        # Past Metadata's write-once check: $DETECTRON2_DATASETS may change between loads.
        vars(meta).update(paths)
        return paths

    set_roots()
    DatasetCatalog.register(name, lambda: load(**set_roots()))
