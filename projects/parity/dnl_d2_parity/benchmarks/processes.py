"""Processes of their own for what is measured."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

# A server that has imported what `preload` names, and computed nothing, forks processes off.
_START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Failed(Exception):
    """A measurement that came to nothing; the message says why in one line.

    Args:
        why: the message.
        details: the traceback, if an error was raised.
        status: of the process, if it ended.
    """

    def __init__(self, why: str, details: str = "", status: int | None = None):
        super().__init__(why)
        self.details, self.status = details, status


def preload(*modules: str) -> None:
    """Has these imported once for all processes to come, where the system can."""
    if _START == "forkserver":
        # The server takes no sys.path; the environment reaches it.
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        multiprocessing.get_context(_START).set_forkserver_preload(list(modules))


def in_own_process(function: Callable, *args: Any) -> Any:
    """``function(*args)``, computed in a fresh process that is gone afterwards.

    Raises:
        Failed: it raised an error, or its process was killed.
    """
    with own_process(partial, function, *args) as ask:
        return ask()


@contextlib.contextmanager
def own_process(make: Callable[..., Callable[[], Any]], *args: Any) -> Iterator[Callable[[], Any]]:
    """Has ``make(*args)`` made in a fresh process and gives a function that has it called there.

    That function raises what :func:`in_own_process` does.
    """
    context = multiprocessing.get_context(_START)
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(there, make, args), daemon=True)
    child.start()
    there.close()

    def ask() -> Any:
        try:
            with contextlib.suppress(BrokenPipeError):  # it has failed already, and may say why
                here.send(True)
            answer = here.recv()
        except (EOFError, ConnectionResetError):
            child.join()
            status = child.exitcode
            why = "; out of memory?" if status == -signal.SIGKILL else ""
            raise Failed(f"its process ended with status {status}{why}", status=status) from None
        if isinstance(answer, Failed):
            raise answer
        (value,) = answer
        return value

    try:
        yield ask
    finally:  # also after Ctrl-C
        child.terminate()
        child.join()


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], args: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    warnings.simplefilter("ignore")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, this process goes and not the one with the results
    try:
        call = make(*args)
        while pipe.recv():
            pipe.send((call(),))
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        with contextlib.suppress(OSError):  # nobody asks any more
            pipe.send(Failed(why, traceback.format_exc()))
