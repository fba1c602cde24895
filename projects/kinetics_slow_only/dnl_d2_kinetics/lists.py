"""Lists of videos and their classes: Kinetics' CSV files, and text files of paths and numbers."""

import csv
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from dnl_d2.errors import UsageError

_log = logging.getLogger("dnl_d2.kinetics")  # below the library's, which a run shows and keeps
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_NAMED = 3  # videos that a message names


class Clip(NamedTuple):
    """A line of Kinetics' list."""

    label: str
    stem: str


def load_kinetics(annotations: str, videos: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Records of Kinetics' videos, cut as its list says.

    Args:
        annotations: the CSV file, with columns label, youtube_id, time_start and time_end.
        videos: the folder of ``CLASS/ID_000012_000022.mp4`` (of any ending; spaces of a class may
            be underscores), or of the files without folders of classes.
        classes: labels in the order of their numbers.

    Returns:
        ``{"file_name", "category_id"}`` of each video that is there. YouTube has lost many: those
        that are missing are counted, and some named, in a warning.

    Raises:
        UsageError: no such file or folder, no video in it, a line or a label that cannot be meant.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    clips = read_clips(annotations)
    unknown = sorted({clip.label for clip in clips} - numbers.keys())
    if unknown:
        raise UsageError(
            f"{annotations}: class {unknown[0]!r} is none of the {len(classes)} classes, such as "
            f"{classes[0]!r}"
        )
    _require_folder(videos)
    files = _Folders(videos)
    records, missing = [], []
    for clip in clips:
        path = files.find(clip)
        if path is None:
            missing.append(os.path.join(clip.label, clip.stem))
        else:
            records.append({"file_name": path, "category_id": numbers[clip.label]})
    _tell(annotations, videos, len(records), missing)
    found = {record["category_id"] for record in records}
    without = {clip.label for clip in clips if numbers[clip.label] not in found}
    if without:
        _log.warning(
            f"{videos}: {len(without)} classes have no video there, such as {min(without)!r}"
        )
    return records


def read_clips(annotations: str) -> list[Clip]:
    """The lines of Kinetics' CSV file.

    Raises:
        UsageError: no such file, columns are missing, times are no numbers, or there is no line.
    """
    clips = []
    with _opened(annotations) as file:
        reader = csv.DictReader(file)
        lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if lacking:
            hint = "; the list of the test set has no labels" if lacking == ["label"] else ""
            raise UsageError(f"{annotations}: no column {lacking[0]!r} in its first line{hint}")
        for row in reader:
            try:
                start, end = (int(float(row[key])) for key in _COLUMNS[2:])
            except (TypeError, ValueError):
                raise UsageError(
                    f"{annotations}:{reader.line_num}: time_start and time_end must be seconds"
                ) from None
            clips.append(Clip(row["label"], f"{row['youtube_id']}_{start:06d}_{end:06d}"))
    if not clips:
        raise UsageError(f"{annotations}: the list is empty")
    return clips


def load_list(annotations: str, videos: str, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Records of a text file with ``PATH NUMBER`` in each line, as OpenMMLab keeps them.

    Args:
        annotations: the file.
        videos: the folder that paths are relative to.
        classes: names of the classes 0, 1, ...

    Returns:
        As :func:`load_kinetics`.

    Raises:
        UsageError: no such file or folder, an empty list, no number at the end of a line, a number
            without a class, or no video that is there.
    """
    entries = []
    with _opened(annotations) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.isdecimal() or int(label) >= len(classes):
                raise UsageError(
                    f"{annotations}:{number}: {line.strip()!r}: expected a path, a space and a "
                    f"class from 0 to {len(classes) - 1}"
                )
            entries.append((path.strip(), int(label)))
    if not entries:
        raise UsageError(f"{annotations}: the list is empty")
    _require_folder(videos)
    records, missing = [], []
    for path, label in entries:
        full = os.path.join(videos, path)
        if os.path.isfile(full):
            records.append({"file_name": full, "category_id": label})
        else:
            missing.append(path)
    _tell(annotations, videos, len(records), missing)
    return records


def read_classes(path: str) -> list[str]:
    """Names of classes: a text file of one a line, or the labels of Kinetics' CSV file, sorted.

    Raises:
        UsageError: no such file, or fewer than two classes in it.
    """
    if path.endswith(".csv"):
        names = sorted({clip.label for clip in read_clips(path)})
    else:
        with _opened(path) as file:
            names = [line.strip() for line in file if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"{path}: {len(names)} names of classes; expected two or more, each once")
    return names


class _Folders:
    """The files of a folder of videos; each folder is listed once."""

    def __init__(self, root: str):
        self._root = root
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, clip: Clip) -> str | None:
        for folder in (clip.label, clip.label.replace(" ", "_"), ""):
            name = self._stems(folder).get(clip.stem)
            if name is not None:
                return os.path.join(self._root, folder, name)
        return None

    def _stems(self, folder: str) -> dict[str, str]:
        """Names without their endings -> names."""
        if folder not in self._listed:
            path = os.path.join(self._root, folder)
            names = os.listdir(path) if os.path.isdir(path) else []
            self._listed[folder] = {os.path.splitext(name)[0]: name for name in names}
        return self._listed[folder]


def _opened(path: str) -> Any:
    try:
        return open(path, encoding="utf-8-sig", newline="")
    except OSError as error:
        raise UsageError(f"{path}: the list of videos cannot be read ({error.strerror})") from error


def _require_folder(videos: str) -> None:
    if not os.path.isdir(videos):
        raise UsageError(f"{videos}: there is no such folder of videos")


def _tell(annotations: str, videos: str, found: int, missing: Sequence[str]) -> None:
    if not found:
        raise UsageError(
            f"{videos}: none of the {len(missing)} videos of {annotations} is there, such as "
            f"{missing[0]}"
        )
    if missing:
        named = ", ".join(missing[:_NAMED])
        _log.warning(
            f"{annotations}: {len(missing)} of {found + len(missing)} videos are not in {videos} "
            f"and are left out: {named}{', ...' if len(missing) > _NAMED else ''}"
        )
