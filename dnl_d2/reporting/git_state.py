"""Which commit code is of, and what has been changed since."""

import os
import subprocess
from dataclasses import dataclass

_SECONDS = 20  # that a git command may take
_LARGEST = 1_000_000  # bytes of a diff that is kept
_LISTED = 50  # files
# The form that `git apply` takes, whatever a person's own git is set to show.
_DIFF = (
    "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/",
    "--dst-prefix=b/", "HEAD",
)  # fmt: skip


@dataclass(frozen=True)
class GitState:
    """The state of a working copy.

    Args:
        folder: its uppermost.
        commit: its hash.
        branch: its name; ``HEAD`` where there is none.
        changed: lines of ``git status --porcelain``, at most 50; empty where all is committed.
        diff: to the commit, for ``git apply``, with the bytes and line ends of the files; empty if
            there is none, or one of over a million bytes.
    """

    folder: str
    commit: str
    branch: str
    changed: tuple[str, ...]
    diff: bytes


def git_state(path: str) -> GitState | None:
    """The state of the working copy in which git keeps ``path``.

    Returns:
        None without git, without a commit, or for a file that git does not keep, such as one of a
        package that is installed somewhere below a working copy.
    """
    folder, name = os.path.split(os.path.realpath(path))
    try:
        _git(folder, "ls-files", "--error-unmatch", name)
        top = _told(folder, "rev-parse", "--show-toplevel").strip()
        commit, branch = (
            _told(top, "rev-parse", *options).strip()
            for options in (["HEAD"], ["--abbrev-ref", "HEAD"])
        )
        changed = _told(top, "status", "--porcelain").splitlines()
        diff = _git(top, *_DIFF) if changed else b""
    except (OSError, subprocess.SubprocessError):
        return None
    more = [f"... {len(changed) - _LISTED} more"] if len(changed) > _LISTED else []
    listed = (*changed[:_LISTED], *more)
    return GitState(top, commit, branch, listed, diff if len(diff) <= _LARGEST else b"")


def _told(folder: str, *arguments: str) -> str:
    return _git(folder, *arguments).decode(errors="replace")


def _git(folder: str, *arguments: str) -> bytes:
    # Variables for git name another working copy where git itself has started this process.
    others = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", "diff.autoRefreshIndex=false", "-C", folder, *arguments],
        check=True,
        capture_output=True,
        timeout=_SECONDS,
        env=others | {"GIT_OPTIONAL_LOCKS": "0"},  # nothing of the working copy is written
    ).stdout
