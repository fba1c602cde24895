"""Pictures as training needs them, kept on a fast disk: neither fetched nor decoded again."""

import hashlib
import logging
import math
import os
import shutil
import struct
from collections.abc import Callable, Sequence

import numpy as np
from torch.utils.data import get_worker_info

from dnl_d2.data.resize import fitted_size, resized
from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError, renamed_when_whole

Size = tuple[int, int]
_READERS = 1  # raise it when read_image or read_label give other arrays of the same files
_RESERVE = 2 * 2**30  # bytes that stay free, for checkpoints on the same disk
# An entry: place of its type in _TYPES, (height, width) of the file, shape of the array, which is 0
# in the end where there are no channels, and the array.
_HEADER = struct.Struct("<6I")
_TYPES = (np.dtype(np.uint8), np.dtype("<i4"), np.dtype("<f8"))
_log = logging.getLogger(__name__)


class PictureCache:
    """Decoded arrays in a folder, which are mapped into memory: a crop reads its rows alone.

    An entry is named by its file's path, size and time of change, so that a changed file is read
    anew, and a shrunk one by the size it was to fit as well, so that recipes that shrink by
    different amounts keep out of each other's way. Any number of processes may use a folder. Where
    no more can be written or the disk is nearly full, one warning is given and pictures that are
    not there yet are read from their files.

    Args:
        folder: made if it is missing.
        largest: (long, short) sides that no augmentation needs more of: larger pictures are kept
            shrunk to fit them. None: all are kept as they are.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(self, folder: str, largest: Sequence[int] | None = None):
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self.largest = largest
        self.writes = True
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder of decoded pictures {folder} cannot be made ({error.strerror}): name "
                'another one, or "" for none (INPUT.CACHE_DIR, LazyConfig: cache_dir of the mapper)'
            ) from error

    def get(
        self, path: str, kind: str, read: Callable[[str], np.ndarray], *, nearest: bool = False
    ) -> tuple[np.ndarray, Size]:
        """The array of a file, from the folder if it is there.

        Args:
            path: the file.
            kind: what ``read`` makes of files; the same file may be kept as several.
            read: gives the (H, W[, C]) array of a file.
            nearest: take the nearest pixel where the array is shrunk, as for labels.

        Returns:
            The array, perhaps read-only, and the file's own (height, width).
        """
        entries = self._entries(path, kind)
        if entries is None:
            array = read(path)
            return array, array.shape[:2]
        for entry in entries:
            found = _load(entry)
            if found is not None and found[0].shape[:2] == self._kept_size(found[1]):
                return found
        array = read(path)
        size: Size = array.shape[:2]
        kept = self._kept_size(size)
        array = array if kept == size else resized(array, kept, nearest=nearest)
        if self.writes:
            self._save(entries[0 if kept == size else -1], array, size)
        return array, size

    def _entries(self, path: str, kind: str) -> list[str] | None:
        """Where the array of a file is kept: whole; shrunk. None for files that are on no disk."""
        try:
            state = os.stat(path)
        except OSError:
            return None
        key = f"{os.path.abspath(path)}\n{state.st_size}\n{state.st_mtime_ns}\n{kind}\n{_READERS}"
        name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        sizes = ["", "-{}x{}".format(*self.largest)] if self.largest else [""]
        return [os.path.join(self.folder, f"{name}{size}.pixels") for size in sizes]

    def _kept_size(self, size: Size) -> Size:
        fitted = fitted_size(size, self.largest) if self.largest else size
        return fitted if fitted[0] <= size[0] and fitted[1] <= size[1] else size

    def _save(self, entry: str, array: np.ndarray, size: Size) -> None:
        try:
            if shutil.disk_usage(self.folder).free < _RESERVE + array.nbytes:
                raise WriteError(f"{self.folder}: less than {_RESERVE / 2**30:.0f} GiB are free")
            with renamed_when_whole(entry) as temporary, open(temporary, "wb") as file:
                kind, shape = _TYPES.index(array.dtype), (*array.shape, 0)[:3]
                file.write(_HEADER.pack(kind, *size, *shape) + array.tobytes())
        except (WriteError, OSError) as error:  # the latter if the folder is gone
            self.writes = False
            worker = get_worker_info()
            if worker is None or worker.id == 0:  # the others see the same
                _log.warning("decoded pictures are no longer kept, training goes on: %s", error)


def _load(entry: str) -> tuple[np.ndarray, Size] | None:
    """An entry's array, mapped into memory, and its file's size; None if missing or damaged."""
    try:
        with open(entry, "rb") as file:
            kind, height, width, *sides = _HEADER.unpack(file.read(_HEADER.size))
            shape, dtype = tuple(side for side in sides if side), _TYPES[kind]
            if os.fstat(file.fileno()).st_size != _HEADER.size + math.prod(shape) * dtype.itemsize:
                return None
            array = np.memmap(file, dtype, "r", _HEADER.size, shape)
            return array.view(np.ndarray), (height, width)
    except (OSError, struct.error, IndexError):
        return None
