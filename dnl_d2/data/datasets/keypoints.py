"""Keypoints of own datasets: names, which of them a mirror image swaps, the skeleton."""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.data.catalog import Metadata
from detectron2.utils.colormap import colormap
from detectron2.utils.file_io import PathManager

from dnl_d2.data.datasets.coco_json import read_coco_json
from dnl_d2.data.datasets.coco_schema import CocoCategory
from dnl_d2.errors import UsageError

_SIDE = re.compile(r"left|right|(?<![^\W_])[lr](?![^\W_])", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_HOW = "of its entry in DATASETS.COCO (LazyConfig: of register_coco_dataset)"


class UnknownKeypoints(UsageError, AttributeError):
    """What the metadata of a dataset cannot say of its keypoints, and how to tell them."""


class CocoMetadata(Metadata):
    """Metadata that takes what it was not told of keypoints from the annotation file, when asked.

    ``keypoint_names`` and ``keypoint_connection_rules`` are the ``keypoints`` and ``skeleton`` of
    the file's categories. ``keypoint_flip_map`` has no place in such a file: it follows from names
    of which each with a side (left and right, l and r) has its counterpart. Where something is
    missing an attribute is not there, as in any metadata; the error says how to give it.
    """

    def __getattr__(self, key: str) -> Any:
        if key in _FROM_FILE:
            return _FROM_FILE[key](self)
        return super().__getattr__(key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _FROM_FILE and key not in vars(self):
            object.__setattr__(
                self, key, value
            )  # what is told goes first, and the file need not be there
        else:
            super().__setattr__(key, value)


def declared_keypoints(
    dataset: str,
    names: Sequence[str] | None,
    flip_map: Iterable[Sequence[str]] | None,
    skeleton: Iterable[Sequence[str]] | None,
) -> dict[str, Any]:
    """What a user tells of keypoints, None for nothing, as Detectron2's metadata.

    Raises:
        UsageError: names that are no different texts, or pairs that are not of two of them.
    """
    metadata: dict[str, Any] = {}
    if names is not None:
        metadata["keypoint_names"] = _checked_names(names, f"dataset {dataset}: keypoints")
    if flip_map is not None:
        pairs = _checked_pairs(flip_map, names, f"dataset {dataset}: keypoint_flip_map")
        swapped = [name for pair in pairs for name in pair]
        if len(set(swapped)) < len(swapped):
            raise UsageError(
                f"dataset {dataset}: keypoint_flip_map {pairs} has a name in two pairs: a mirror "
                "image swaps each with one other"
            )
        metadata["keypoint_flip_map"] = pairs
    if skeleton is not None:
        pairs = _checked_pairs(skeleton, names, f"dataset {dataset}: skeleton")
        metadata["keypoint_connection_rules"] = _colored(pairs)
    return metadata


def with_keypoints(records: list[dict]) -> list[dict]:
    """Gives objects without keypoints as many as others have, none of them marked.

    Detectron2 takes an image's objects all with keypoints or all without. Objects of which some
    have more than others stay as they are, for models that learn none.
    """
    objects = [entry for record in records for entry in record.get("annotations", ())]
    lengths = {len(entry.get("keypoints") or ()) for entry in objects} - {0}
    if len(lengths) == 1:
        unmarked = [0.0] * lengths.pop()
        for entry in objects:
            entry["keypoints"] = entry.get("keypoints") or list(unmarked)
    return records


def require_equal_keypoints(objects: Iterable[tuple[str, Sequence[float] | None]]) -> None:
    """For models that learn keypoints, of which every object has the same.

    Args:
        objects: what to call each in a message, and its x, y and visibility of all points, if any.

    Raises:
        UsageError: one has more or fewer than another.
    """
    length = 0
    for what, points in objects:
        length = length or len(points or ())
        if points and len(points) != length:
            raise UsageError(
                f"{what} has {len(points) // 3} keypoints, others have {length // 3}: write all of "
                "them, with 0, 0, 0 for one that is not marked"
            )


def flip_map_of(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """Pairs of names that a mirror image swaps; None where the names do not say.

    Names say it if some have a side, and each of these has the name of the other side.
    """
    if len(names) < 2:
        return []
    pairs = [(name, _SIDE.sub(_swapped, name)) for name in names if _SIDE.search(name)]
    if not pairs or any(other not in names for _, other in pairs):
        return None
    return [(name, other) for name, other in pairs if names.index(name) < names.index(other)]


def _swapped(side: re.Match) -> str:
    word = side[0]
    other = _OTHER_SIDE[word.lower()]
    if word.isupper():
        return other.upper()
    return other.title() if word.istitle() else other


def _names(meta: CocoMetadata) -> list[str]:
    what = f"dataset {meta.name}: 'keypoints' of {meta.json_file}"
    found = {
        str(category.name): tuple(_checked_names(category.keypoints, what))
        for category in _categories(meta)
        if category.keypoints
    }
    if len(set(found.values())) == 1:
        return list(next(iter(found.values())))
    wrong = f"differ between the categories {', '.join(found)}" if found else "are missing"
    raise UnknownKeypoints(f"{what} {wrong}: give names by KEYPOINTS {_HOW}")


def _flip_map(meta: CocoMetadata) -> list[tuple[str, str]]:
    names = meta.keypoint_names
    pairs = flip_map_of(names)
    if pairs is None:
        raise UnknownKeypoints(
            f"dataset {meta.name}: the names of its keypoints ({', '.join(names)}) do not tell "
            "which of them a mirror image swaps: give these pairs of names, [] for none, by "
            f"KEYPOINT_FLIP_MAP {_HOW}"
        )
    return pairs


def _connection_rules(meta: CocoMetadata) -> list[tuple[str, str, tuple[int, ...]]]:
    names = dict(enumerate(meta.keypoint_names, start=1))
    for category in _categories(meta):
        try:
            pairs = [(names[a], names[b]) for a, b in category.skeleton]
        except (KeyError, TypeError, ValueError):
            continue
        return _colored(pairs)
    raise UnknownKeypoints(
        f"dataset {meta.name}: {meta.json_file} has no 'skeleton' of pairs of numbers from 1 to "
        f"{len(names)}: give pairs of names by SKELETON {_HOW}"
    )


_FROM_FILE = {
    "keypoint_names": _names,
    "keypoint_flip_map": _flip_map,
    "keypoint_connection_rules": _connection_rules,
}


def _colored(pairs: Sequence[Sequence[str]]) -> list[tuple[str, str, tuple[int, ...]]]:
    """As Detectron2 draws connections: with a colour each."""
    colors = colormap(rgb=True).astype(int).tolist()
    return [(a, b, tuple(colors[i % len(colors)])) for i, (a, b) in enumerate(pairs)]


def _categories(meta: CocoMetadata) -> list[CocoCategory]:
    path = meta.json_file
    try:
        status = os.stat(PathManager.get_local_path(path))
        return _read_categories(path, status.st_mtime_ns, status.st_size)
    except (OSError, UsageError) as error:
        reason = " ".join(str(error).split())
        raise UnknownKeypoints(f"dataset {meta.name}: {path}: {reason}") from error


@functools.lru_cache(maxsize=64)
def _read_categories(path: str, *stamp: int) -> list[CocoCategory]:
    return read_coco_json(path)[0].categories


def _checked_names(names: Any, what: str) -> list[str]:
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, (str, int)) for n in names):
        raise UnknownKeypoints(f"{what} are names, not {names!r}")
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts) or not texts:
        raise UnknownKeypoints(f"{what} are {texts}: give each point a name of its own")
    return texts


def _checked_pairs(pairs: Any, names: Sequence[str] | None, what: str) -> list[tuple[str, str]]:
    """Pairs of two different texts, of ``names`` if they are known."""
    for pair in pairs if isinstance(pairs, (list, tuple)) else [pairs]:
        fine = isinstance(pair, (list, tuple)) and len(pair) == 2 and pair[0] != pair[1]
        if not fine or not all(isinstance(name, str) for name in pair):
            raise UsageError(f"{what} is a list of pairs of names, not {pairs!r}")
        unknown = next((name for name in pair if names is not None and name not in names), None)
        if unknown is not None:
            raise UsageError(f"{what} names {unknown!r}, which is none of {', '.join(names or ())}")
    return [(first, second) for first, second in pairs]
