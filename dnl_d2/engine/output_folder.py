"""The folder that a run writes to, in which another run may have left its results."""

import os
from collections.abc import Iterator
from pathlib import Path

from dnl_d2.errors import UsageError

_WEIGHTS = "model_*.pth"
_FIGURES = ("last_checkpoint", "metrics.json", "events.out.tfevents.*")


def require_room(folder: str, *, key: str, weights: str, overwrite: bool) -> None:
    """Sees to it that a new run loses no weights of an earlier one.

    Args:
        folder: where the run will write.
        key: the config key of the folder, for the message.
        weights: what the run starts from.
        overwrite: whether :func:`clear` may delete those of an earlier run.

    Raises:
        UsageError: there are weights, and ``overwrite`` is off; or the run would start from one of
            the files that it deletes.
    """
    found = sorted(Path(folder).glob(_WEIGHTS))
    names = weights_in(folder)
    if not overwrite and names:
        raise UsageError(
            f"{key} {folder} holds the weights of a run ({names}): --resume goes on with it, "
            "--overwrite deletes them and starts anew; or name another folder"
        )
    if any(os.path.exists(weights) and path.samefile(weights) for path in found):
        raise UsageError(
            f"--overwrite would delete {weights}, which the run starts from: move the file to "
            f"another folder, or set {key} to one"
        )


def weights_in(folder: str) -> str:
    """The names of up to three checkpoints in a folder; empty if there is none."""
    return ", ".join(path.name for path in sorted(Path(folder).glob(_WEIGHTS))[-3:])


def clear(folder: str) -> None:
    """Deletes the checkpoints and figures of an earlier run; its log goes on.

    Raises:
        UsageError: a file cannot be deleted.
    """
    for path in _results(folder):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"--overwrite: {path} cannot be deleted ({error.strerror})") from error


def _results(folder: str) -> Iterator[Path]:
    """What makes a run go on comes first: half of them deleted are no run."""
    for pattern in (*_FIGURES, _WEIGHTS):
        yield from sorted(Path(folder).glob(pattern))
