"""The checkpoints in a run's folder, in the order in which they were written."""

import os
import re
from collections.abc import Iterator

from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.errors import UsageError

# The best checkpoint is for evaluation: its run goes on from the last one.
BEST = "model_best"
_FINAL = "model_final.pth"
_NUMBERED = re.compile(r"model_(\d+)\.pth")


def numbered(folder: str) -> list[tuple[int, str]]:
    """Iteration and path of the checkpoints that have it in their names, the first one first."""
    names = os.listdir(folder) if os.path.isdir(folder) else ()
    found = [(int(m[1]), os.path.join(folder, m[0])) for m in map(_NUMBERED.fullmatch, names) if m]
    return sorted(found)


def newest_first(folder: str) -> Iterator[str]:
    """Paths of what a run may go on from, the last iteration first.

    That of ``model_final.pth`` is in the file: the run may have gone on since. A file that does not
    tell is no checkpoint of a run; a broken one comes first, to be found broken.
    """
    final = os.path.join(folder, _FINAL)
    reached = _iteration(final) if os.path.isfile(final) else None
    for iteration, path in reversed(numbered(folder)):
        if reached is not None and reached >= iteration:
            yield final
            reached = None
        yield path
    if reached is not None:
        yield final


def _iteration(path: str) -> float | None:
    try:
        found = read_weights(path).rest.get("iteration")
    except UsageError:
        return float("inf")
    return found if isinstance(found, int) else None
