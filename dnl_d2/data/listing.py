"""Listing folders by the endings of their files, and pairing what two of them hold."""

import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from detectron2.utils.file_io import PathManager

from dnl_d2.errors import UsageError, printable, shortened
from dnl_d2.files import require_regular

_NAMED = 3  # how many files a message lists
_LONGEST = 300  # characters of their names


def list_folder(folder: str) -> list[str]:
    """Names of what lies in a folder, sorted; none where there is no such folder."""
    return sorted(PathManager.ls(folder)) if PathManager.isdir(folder) else []


def stems_and_files(folder: str, suffixes: Sequence[str]) -> list[tuple[str, str]]:
    """The files of a folder that end in one of ``suffixes``, also in capitals; no hidden ones.

    Returns:
        (name without the suffix, path), sorted by name; none where there is no such folder. An
        accented letter is one character, also where a file system (macOS) has made it two.
    """
    return [
        (unicodedata.normalize("NFC", entry[: -len(suffix)]), os.path.join(folder, entry))
        for entry in list_folder(folder)
        for suffix in suffixes
        if entry.lower().endswith(suffix.lower()) and not entry.startswith(".")
    ]


def find_files(folder: str, suffix: str) -> dict[str, str]:
    """The files of a folder that end in ``suffix``, by their names without it, in order."""
    return dict(stems_and_files(folder, [suffix]))


def find_files_by_city(folder: str, suffix: str) -> dict[str, str]:
    """The files ``folder/CITY/*suffix`` by ``CITY/`` and the name without the suffix."""
    return {
        f"{city}/{key}": path
        for city in list_folder(folder)
        for key, path in find_files(os.path.join(folder, city), suffix).items()
    }


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 text file, without a byte-order mark and what spaces surround a line.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    require_regular(path)
    with PathManager.open(path, "rb") as file:
        return [line.strip() for line in file.read().decode("utf-8-sig").splitlines()]


def require_folder(folder: str, hint: str) -> None:
    """Raises a UsageError, ending in ``hint``, if there is no such folder."""
    if not PathManager.isdir(folder):
        raise UsageError(f"folder {folder} does not exist: {hint}")


def without(keys: Iterable[str], files: Collection[str]) -> list[str]:
    """The ``keys`` that are not among ``files``, in order."""
    return [key for key in keys if key not in files]


def count_and_name(found: Sequence[str], total: int, what: str) -> str:
    """Words a line such as "5 of 8 images have no label: a, b, c, ...".

    Args:
        found: whatever it is about; three at most are named.
        total: how many there are in all.
        what: the middle of the line.
    """
    more = ", ..." if len(found) > _NAMED else ""
    names = printable(", ".join(found[:_NAMED]))
    names = names if len(names) <= _LONGEST else shortened(names, _LONGEST)
    return f"{len(found)} of {total} {what}: {names}{more}"


def require_all(keys: Collection[str], files: Collection[str], what: str, hint: str) -> None:
    """Raises a UsageError that counts and names the ``keys`` that are not among ``files``.

    Args:
        keys: names that must be there.
        files: names that are there.
        what: the start of the message after the count, such as "images in X have no label in Y".
        hint: the end of the message.
    """
    lacking = without(keys, files)
    if lacking:
        raise UsageError(f"{count_and_name(lacking, len(keys), what)}; {hint}")
