"""One training at a time in an output folder."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from detectron2.utils import comm

from dnl_d2.engine.processes import torchrun_job
from dnl_d2.errors import UsageError, building, printable
from dnl_d2.files import TEMPORARY

try:
    import fcntl
except ImportError:  # Windows, where nothing is kept out
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_run_in(folder: str, *, key: str) -> Iterator[None]:
    """Keeps other trainings out of a folder, and removes what killed ones have half written.

    The lock is the operating system's: it ends with the main process, however that ends, and does
    not pass to processes that it has started. Where a file system has none (some network disks),
    nothing is kept out.

    Args:
        folder: made if it is missing.
        key: the config key of the folder, for the message.

    Raises:
        UsageError: a training is running there, or the folder cannot be written; in all processes.
    """
    with contextlib.ExitStack() as held:
        refused = ""
        if comm.is_main_process():
            try:
                _lock(held.enter_context(_opened(folder)), f"{key} {folder}")
            except UsageError as error:
                refused = str(error)
        refused = comm.all_gather(refused)[0]
        if refused:  # the other processes write nothing there either
            raise UsageError(refused)
        if comm.is_main_process():
            _remove_leftovers(folder)
        yield


def _remove_leftovers(folder: str) -> None:
    for leftover in Path(folder).glob(f"*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def is_begun_in(folder: str) -> bool:
    """Whether torchrun has started this process once more, and the one before trained in a folder.

    torchrun repeats the whole command, also one that was refused because of another run's weights.
    """
    if not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        return False
    try:
        holder = Path(folder, LOCK).read_text(encoding="utf-8")
    except OSError:
        holder = ""
    return comm.all_gather(holder.rstrip().endswith(torchrun_job()))[0]


def _opened(folder: str) -> IO[str]:
    with building(f"the output folder {folder}"):
        os.makedirs(folder, exist_ok=True)
        return open(os.path.join(folder, LOCK), "a+", encoding="utf-8")


def _lock(file: IO[str], folder: str) -> None:
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = printable(file.read(200).strip()) or "unknown"
        raise UsageError(
            f"{folder}: another training writes there ({holder}): wait for its end, end it, or "
            "name another folder"
        ) from error
    except OSError as error:
        _log.debug(f"{file.name} cannot be locked ({error.strerror})")
    # For whoever asks; on a full disk the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        holder = f"process {os.getpid()} on {socket.gethostname()} {torchrun_job()}"
        os.write(file.fileno(), f"{holder.rstrip()}\n".encode())
