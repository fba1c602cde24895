"""What reading one file may take in a test."""

import contextlib
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

SECONDS = 10  # of the processor, however busy the machine is


@contextlib.contextmanager
def ten_seconds(*, waiting: bool = False) -> Iterator[None]:
    """Raises where the processor has computed for ten seconds.

    A call into C that goes on for ever is interrupted by no exception: after a minute the operating
    system ends the process.

    Args:
        waiting: whether ten seconds by the clock are too long as well.
    """
    with contextlib.ExitStack() as undo:
        for timer, number in [
            (signal.ITIMER_PROF, signal.SIGPROF),
            *([(signal.ITIMER_REAL, signal.SIGALRM)] if waiting else []),
        ]:
            undo.callback(signal.signal, number, signal.signal(number, _too_long))
            undo.callback(signal.setitimer, timer, 0)
            signal.setitimer(timer, SECONDS)
        before = resource.getrlimit(resource.RLIMIT_CPU)
        undo.callback(resource.setrlimit, resource.RLIMIT_CPU, before)
        latest = int(time.process_time()) + 6 * SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (latest, before[1]))
        yield


def _too_long(*_: Any) -> NoReturn:
    raise AssertionError(f"more than {SECONDS} seconds")
