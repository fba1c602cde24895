"""Writing files whole or not at all."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator

from dnl_d2.errors import UsageError

# What names end in under which files are written before they have their own.
TEMPORARY = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WriteError(UsageError):
    """A file cannot be written: as a rule, no other can be either."""


@contextlib.contextmanager
def renamed_when_whole(path: str, *, durable: bool = False) -> Iterator[str]:
    """A name in the same folder to write under, which is then renamed to ``path``.

    ``path`` is whole or as it was before, also if the process is killed; if it is ``durable``, also
    if the machine fails, for which the disk is waited for.

    Raises:
        WriteError: the file cannot be written, with the reason.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # renaming would replace a device
        raise WriteError(f"{path}: cannot be written (it is no file)")
    temporary = f"{path}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}"
    try:
        yield temporary
        if durable:
            _wait_for_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _wait_for_disk(os.path.dirname(path) or ".")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        if getattr(error, "errno", None) in _FULL:
            reason = "no space left on the disk: make room and run again"
        else:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise WriteError(f"{path}: cannot be written ({reason})") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _wait_for_disk(path: str) -> None:
    """Until a file, or the names in a folder, are on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks' folders
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: str, content: bytes, *, durable: bool = False) -> None:
    """Writes a file by :func:`renamed_when_whole`."""
    with renamed_when_whole(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(content)


def write_text(path: str, text: str, *, durable: bool = False) -> None:
    """Writes a UTF-8 file by :func:`renamed_when_whole`."""
    write_bytes(path, text.encode(), durable=durable)


def check_folder(path: str) -> None:
    """Raises :class:`UsageError` if nothing can be written where ``path`` is to be."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"{path}: there is no folder {folder!r}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: no permission to write in {folder!r}")
