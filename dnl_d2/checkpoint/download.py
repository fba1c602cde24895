"""Fetching a file once: resumed where it was cut off, checked against its hash."""

import hashlib
import http.client
import logging
import os
import ssl
import time
import urllib.error
import urllib.request

import portalocker
from iopath.common.file_io import file_lock
from tqdm import tqdm

from dnl_d2.errors import UsageError
from dnl_d2.files import WriteError

_log = logging.getLogger(__name__)

# What names end in while a file is fetched: never read as one.
PART = ".part"
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_ATTEMPTS = 5  # as long as each brings something
_PAUSE = 1.0  # seconds between attempts
_NETWORK = (
    urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError
)  # fmt: skip


def fetch(url: str, path: str, *, sha256: str = "") -> str:
    """Fetches a file, unless it is there.

    Processes that want the same file wait for the one that fetches it.

    Args:
        url: its address.
        path: where it is kept. Until it is whole it is called ``path`` + :data:`PART`, from which
            the next attempt goes on, also one of another process.
        sha256: the first digits of its hash; empty for a file that cannot be checked, which is then
            never resumed either.

    Returns:
        ``path``.

    Raises:
        UsageError: it cannot be fetched, or what came or lies there is another file.
        WriteError: it cannot be written.
    """
    if not os.path.isfile(path):
        try:
            with file_lock(path):
                if not os.path.isfile(path):  # or another process was faster
                    _fetch(url, path, sha256)
                    return path
        except portalocker.LockException as error:
            reason = "another process has been fetching it for an hour"
            raise UsageError(f"{path}: cannot be locked ({error or reason})") from error
        except OSError as error:
            raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    _check(path, sha256)
    return path


def _check(path: str, sha256: str) -> None:
    digest = _digest(path) if sha256 else ""
    if not digest.startswith(sha256):
        raise UsageError(
            f"{path} is not the published file (SHA-256 {digest[:8]}..., published {sha256}...): "
            "delete it, and it is fetched again"
        )


def _fetch(url: str, path: str, sha256: str) -> None:
    part = path + PART
    if not sha256:
        _remove(part)  # a beginning of an unknown file
    _log.info("fetching %s to %s", url, path)
    try:
        in_pieces = _receive_all(url, part, resume=bool(sha256))
        if in_pieces and not _digest(part).startswith(sha256):  # they were of different files
            _remove(part)
            _receive_all(url, part, resume=True)
    except (*_NETWORK, ValueError) as error:
        reason = " ".join(str(error).removeprefix("<urlopen error ").split()).removesuffix(">")
        raise UsageError(
            f"{url} cannot be fetched ({reason}): download it elsewhere and put it at {path}"
        ) from error
    digest = _digest(part) if sha256 else ""
    if not digest.startswith(sha256):
        _remove(part)
        raise UsageError(
            f"{url} is not the published file (SHA-256 {digest[:8]}..., published {sha256}...): "
            "what came was deleted"
        )
    os.replace(part, path)


def _receive_all(url: str, part: str, *, resume: bool) -> bool:
    """Fetches until the file is whole; goes on where a connection was cut off.

    Returns:
        Whether it came in several pieces, an earlier process's among them.
    """
    started, attempt = _size(part) > 0, 0
    while True:
        attempt += 1
        before = _size(part)
        try:
            _receive(url, part)
            return started or attempt > 1
        except urllib.error.HTTPError:
            raise
        except _NETWORK as error:
            if attempt == _ATTEMPTS or _size(part) <= before:
                raise
            _log.warning("%s: %s; going on", url, error)
        if not resume:
            _remove(part)
        time.sleep(_PAUSE)


def _receive(url: str, part: str) -> None:
    """One request: for the whole file, or for what follows the part that is there."""
    have = _size(part)
    ask = {"User-Agent": "dnl_d2"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=ask), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return  # nothing is left to fetch
        _remove(part)
        return _receive(url, part)
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise urllib.error.URLError("the answer is a web page, not a file")
        # Servers may ignore what was asked for and send the whole file.
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        start = have if have and goes_on else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        _write(answer, part, start=start, total=total)
    if total is not None and _size(part) < total:
        raise ConnectionError(f"cut off after {_size(part)} of {total} bytes")


def _write(answer: http.client.HTTPResponse, part: str, *, start: int, total: int | None) -> None:
    """Appends what comes, with a bar on a terminal."""
    name = os.path.basename(part).removesuffix(PART)
    bar = tqdm(
        desc=name, initial=start, total=total, unit="B", unit_scale=True, leave=False, disable=None
    )
    with bar, open(part, "ab" if start else "wb") as file:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)


def _digest(path: str) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
