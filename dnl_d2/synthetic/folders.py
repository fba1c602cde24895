"""What generated datasets share: their parameters, their coins, and folders written as a whole."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping

import numpy as np

from dnl_d2.data.datasets.generated import SPLITS
from dnl_d2.errors import UsageError

_MARKER = "generated.json"
_logger = logging.getLogger(__name__)


def dataset_parameters(
    recipe: int,
    *,
    train: int,
    val: int,
    size: int | tuple[int, int],
    seed: int,
    reach: float,
    noise: float,
) -> dict:
    """Returns what a generated dataset is made from, in JSON's types.

    Args:
        recipe: number that changes with the pictures, so that old copies are drawn anew.
        train, val, size, seed, reach, noise: see :func:`dnl_d2.synthetic.generate_dataset`.

    Raises:
        UsageError: a number is out of its range.
    """
    height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
    if min(height, width) < 64 or min(train, val) < 1 or min(seed, reach, noise) < 0:
        raise UsageError(
            f"generated dataset: size {height}x{width} must be at least 64x64, train {train} and "
            f"val {val} at least 1, seed {seed}, reach {reach} and noise {noise} not negative"
        )
    return {
        "recipe": recipe, "train": train, "val": val, "size": [height, width],
        "seed": seed, "reach": reach, "noise": noise,
    }  # fmt: skip


def toss(key: tuple[int, int], index: int, *, couples: int) -> tuple[int, list[tuple[bool, bool]]]:
    """The answers of picture ``index``: fair coins, and balanced in any four from a multiple of 4.

    Args:
        key: seed and number of the split.
        index: number of the picture.
        couples: number of couples of discs.

    Returns:
        The beacon's kind, and which discs of each couple are there.
    """
    block, position = divmod(index, 4)
    coins = np.random.default_rng((*key, 0, block))
    kind = coins.permutation([0, 0, 1, 1])[position]
    states = [coins.permutation(4)[position] for _ in range(couples)]
    return int(kind), [(bool(state & 1), bool(state & 2)) for state in states]


def write_folder(
    root: str,
    parameters: dict,
    counts: Mapping[str, int],
    write_split: Callable[[str, str, dict], None],
) -> None:
    """Writes a folder aside and renames it; leaves it alone where it holds these parameters.

    Args:
        root: the folder; replaced if it holds a generated dataset of other parameters.
        parameters: what it is made from.
        counts: number of files in each of its folders.
        write_split: writes one split, given the folder, the split's name and ``parameters``.

    Raises:
        UsageError: ``root`` holds anything else, or cannot be written.
    """
    root = os.path.abspath(root)
    if _holds(root, parameters, counts):
        _logger.info("Generated dataset in %s is up to date", root)
        return
    parent = os.path.dirname(root)
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".generating-", dir=parent, ignore_cleanup_errors=True
        ) as aside:
            fresh = os.path.join(aside, "fresh")
            for split in SPLITS:
                write_split(fresh, split, parameters)
            with open(os.path.join(fresh, _MARKER), "w") as file:
                json.dump(parameters, file, indent=1)
            try:
                _replace(root, fresh, trash=os.path.join(aside, "old"))
            except OSError:
                if not _holds(root, parameters, counts):
                    raise  # else another process was faster, with the same pictures
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"generated dataset {root}: cannot be written ({reason})") from error
    total = " + ".join(str(parameters[split]) for split in SPLITS)
    _logger.info("Generated dataset of %s pictures in %s", total, root)


def _holds(root: str, parameters: dict, counts: Mapping[str, int]) -> bool:
    """Whether ``root`` is complete and of these parameters."""
    try:
        with open(os.path.join(root, _MARKER)) as file:
            if json.load(file) != parameters:
                return False
        return all(
            len(os.listdir(os.path.join(root, folder))) == count for folder, count in counts.items()
        )
    except (OSError, ValueError):
        return False


def _replace(root: str, fresh: str, *, trash: str) -> None:
    if os.path.isdir(root):
        if os.listdir(root) and not os.path.isfile(os.path.join(root, _MARKER)):
            raise UsageError(
                f"folder {root} holds files that are no generated dataset (no {_MARKER}): "
                "empty it or choose another folder"
            )
        os.rename(root, trash)
    os.rename(fresh, root)
