"""Looking at the folders of a dataset before anything is converted."""

import os
from collections.abc import Collection, Iterable, Mapping

from dnl_d2.errors import UsageError

_NAMED = 3  # how many files a message lists


def require_folder(folder: str, hint: str) -> None:
    """Raises a UsageError, ending in ``hint``, if there is no such folder."""
    if not os.path.isdir(folder):
        raise UsageError(f"folder {folder} does not exist: {hint}")


def find_files(folder: str, suffix: str) -> dict[str, str]:
    """Lists the files of a folder that end in ``suffix`` by their names without it, in order.

    A missing folder counts as empty, and the suffix may be in capitals.
    """
    if not os.path.isdir(folder):
        return {}
    return {
        entry[: -len(suffix)]: os.path.join(folder, entry)
        for entry in sorted(os.listdir(folder))
        if entry.lower().endswith(suffix.lower()) and not entry.startswith(".")
    }


def lacking(keys: Iterable[str], files: Collection[str], what: str) -> list[str]:
    """Returns a line that counts and names the ``keys`` that are not among ``files``, if any.

    Args:
        keys: names that should be there.
        files: names that are there.
        what: the start of the line after the count, such as "images in X have no label in Y".
    """
    keys = list(keys)
    missing = [key for key in keys if key not in files]
    if not missing:
        return []
    more = ", ..." if len(missing) > _NAMED else ""
    names = ", ".join(missing[:_NAMED]) + more
    return [f"{len(missing)} of {len(keys)} {what} (only partly unpacked?): {names}"]


def compare_counts(counts: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Returns a line for each split whose number of pictures is not the published one."""
    return [
        f"{split} has {counts[split]} pictures, the published dataset {number}: it seems incomplete"
        for split, number in official.items()
        if counts[split] != number
    ]
