"""Registering datasets with Detectron2, whose own are left alone."""

import contextlib
import gc
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from dnl_d2.errors import UsageError

# The evaluator_type of datasets for semantic segmentation.
SEMANTIC = ("sem_seg", "cityscapes_sem_seg")

# Inside `listed_once`: what each loader found, and where.
_listings: dict["_Loader", "_Listing"] | None = None


def dataset_path(path: str) -> str:
    """Returns ``path``, taken relative to ``$DETECTRON2_DATASETS`` unless it is absolute.

    ``~`` is the home folder in both, as it is in a shell.
    """
    root = os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    return os.path.join(root, os.path.expanduser(path))


def register(
    name: str,
    load: Callable[..., list[dict]],
    paths: Mapping[str, str],
    metadata: Mapping[str, Any],
    *,
    noted_by_load: Sequence[str] = (),
    metadata_class: type[Metadata] = Metadata,
) -> None:
    """Registers a dataset; a second call of one name replaces the first.

    Beside ``metadata`` and ``paths`` the metadata get ``set_paths``, which sets the latter anew.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        load: returns the records; called with ``paths`` as keywords.
        paths: files and folders by their name in the metadata, relative to
            ``$DETECTRON2_DATASETS``, which is read when the dataset is loaded.
        metadata: what else is known of the dataset.
        noted_by_load: keys of the metadata that ``load`` sets.
        metadata_class: may know more than it is told.

    Raises:
        UsageError: the name is another's, Detectron2's for instance.
    """
    if name in DatasetCatalog.list():
        if not isinstance(DatasetCatalog[name], _Loader):
            raise UsageError(
                f"there is a dataset {name!r} already, which Detectron2 or another package has "
                "registered: choose another name, or take that one away with "
                f"detectron2.data.DatasetCatalog.remove({name!r})"
            )
        DatasetCatalog.remove(name)
    MetadataCatalog[name] = meta = metadata_class(name=name, **metadata)
    loader = _Loader(meta, load, dict(paths), noted_by_load)
    meta.set(set_paths=loader.set_paths)
    loader.set_paths()
    DatasetCatalog.register(name, loader)


def register_dataset(
    name: str,
    load: Callable[..., list[dict]],
    roots: Mapping[str, str],
    *,
    classes: Sequence[str] | None,
    colors: Sequence[Sequence[int]] | None = None,
    ignore_label: int = 255,
    evaluator_type: str = "sem_seg",
) -> None:
    """Registers a dataset for semantic segmentation; a second call replaces the first.

    Args:
        name: the name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        load: returns the records; called with ``roots`` as keywords.
        roots: folders by their name in the metadata, relative to ``$DETECTRON2_DATASETS``, which is
            read when the dataset is loaded.
        classes: names of the classes 0, 1, ...; None if nobody has told.
        colors: an RGB triple per class for pictures.
        ignore_label: the label value that is no class.
        evaluator_type: key of ``dnl_d2.evaluation.build.EVALUATORS``.

    Raises:
        UsageError: the name is another's, Detectron2's for instance.
    """
    metadata: dict[str, Any] = {"ignore_label": ignore_label, "evaluator_type": evaluator_type}
    if classes is not None:
        metadata["stuff_classes"] = list(classes)
    if colors is not None:
        metadata["stuff_colors"] = [tuple(color) for color in colors]
    register(name, load, roots, metadata)


@contextlib.contextmanager
def listed_once() -> Iterator[None]:
    """Within it a dataset that this library has registered is listed once, for a whole run.

    The check before training, the loader and the evaluator each get a copy of their own. Files
    that come or go meanwhile are not noticed; another ``$DETECTRON2_DATASETS`` is.
    """
    global _listings
    outer = _listings
    _listings = {} if outer is None else outer
    try:
        yield
    finally:
        _listings = outer


class _Listing:
    """What a loader found, kept so that a copy is cheap."""

    def __init__(self, paths: dict[str, str], records: list[dict], noted: dict[str, Any]):
        self.paths, self.noted = paths, noted
        # To unpickle is the fastest deep copy; Detectron2's loader pickles records all the same.
        self._records = pickle.dumps(records, pickle.HIGHEST_PROTOCOL)

    def copy(self) -> list[dict]:
        collects = gc.isenabled()
        gc.disable()  # or it looks through the growing records again and again: five times the time
        try:
            return pickle.loads(self._records)
        finally:
            if collects:
                gc.enable()


class _Loader:
    """Loads a registered dataset from where ``$DETECTRON2_DATASETS`` is now."""

    def __init__(self, meta: Metadata, load: Callable, paths: Mapping[str, str], noted: Sequence):
        self._meta, self._load, self._paths, self._noted = meta, load, paths, noted

    def set_paths(self) -> dict[str, str]:
        """Sets the paths in the metadata, and forgets what a file said that may have changed.

        Metadata refuses to change what they once had, so this goes past their check.
        """
        paths = {key: dataset_path(path) for key, path in self._paths.items()}
        listing = self._listing(paths)
        metadata = vars(self._meta)
        for key in self._noted:
            metadata.pop(key, None)
        metadata |= paths | (listing.noted if listing else {})
        return paths

    def __call__(self) -> list[dict]:
        paths = self.set_paths()
        listing = self._listing(paths)
        if listing is not None:
            return listing.copy()
        records = self._load(**paths)
        if _listings is not None:
            noted = {key: self._meta.get(key) for key in self._noted}
            _listings[self] = _Listing(paths, records, noted)
        return records

    def _listing(self, paths: Mapping[str, str]) -> _Listing | None:
        listing = None if _listings is None else _listings.get(self)
        return listing if listing is not None and listing.paths == paths else None
