"""Writing files whole or not at all."""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator

from dnl_d2.errors import UsageError, shortened

# What names end in under which files are written before they have their own.
TEMPORARY = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: a limit of the shell's
_PROBE = 1 << 20  # bytes


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
        raise WriteError(f"{path}: cannot be written ({_reason(error, temporary)})") from error
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


def _reason(error: OSError | RuntimeError, temporary: str) -> str:
    """Why a file cannot be written; PyTorch's and safetensors' own errors do not say it."""
    cause = error if getattr(error, "errno", None) else _disk_error(temporary) or error
    if getattr(cause, "errno", None) in _FULL:
        return "no space left on the disk: make room and run again"
    return getattr(cause, "strerror", None) or shortened(cause)


def _disk_error(temporary: str) -> OSError | None:
    """What the disk says if as much as a buffer is written behind what there is; None if it may."""
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(_PROBE))
    except OSError as error:
        return error
    return None


def require_regular(path: str) -> None:
    """Raises an OSError for a pipe, a socket or a device: opening it may wait for ever.

    A file that cannot be looked at is left to who opens it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a file", path)


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
