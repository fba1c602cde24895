"""Why a training run ended, in a line."""

import contextlib
from collections.abc import Iterator

from dnl_d2.errors import UsageError


@contextlib.contextmanager
def explaining_failures() -> Iterator[None]:
    """Turns a diverged loss into a :class:`UsageError`, and names what failed first.

    Hooks that end a run may fail after it, for the same reason.
    """
    try:
        yield
    except Exception as error:
        known = [e for e in _chain(error) if isinstance(e, UsageError | FloatingPointError)]
        if not known:
            raise
        if isinstance(known[-1], UsageError):
            raise known[-1] from None
        what = " ".join(str(known[-1]).partition("!")[0].split())  # behind it all losses follow
        what = what.rstrip(".;, ")
        raise UsageError(
            f"training diverged: {what}; lower the learning rate, or look at the labels and the "
            "precision. The last checkpoint is from before"
        ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what was being handled when it was raised, and so on."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__context__
