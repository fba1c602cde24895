"""Ending a run early, by a signal or at a time limit, so that it can be resumed."""

import atexit
import contextlib
import logging
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from detectron2.engine import hooks
from detectron2.utils import comm

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.errors import UsageError

_log = logging.getLogger(__name__)

# The exit status of a run that was asked to end and has saved a checkpoint; EX_TEMPFAIL of
# sysexits.h, "try again later".
STOPPED = 75
# Ctrl-C; what batch systems and containers send; a terminal that is closed; `sbatch --signal=USR1`.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]
_ALARM = getattr(signal, "SIGALRM", None)  # not on Windows
_CHILD = getattr(signal, "SIGCHLD", None)
# Of one Ctrl-C both the terminal and the launching process tell: within so many seconds a second
# signal is the first one once more.
_SAME_SIGNAL = 1.0
# Time that a run with a limit has to save, in seconds, and at most as a share of its limit.
_RESERVE, _SHARE_OF_LIMIT = 120.0, 0.1
_WAIT_FOR_CHECKPOINT = 600.0  # seconds
# In an evaluation others may be waiting for this process's results, deaf to signals, until it ends.
# Batch systems give 30 s.
_WAIT_IN_EVALUATION = 20.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Stopped(SystemExit):
    """The run was asked to end and has saved a checkpoint; the process exits with STOPPED.

    Attributes:
        message: by what it was asked, and where it can be resumed.
    """

    def __init__(self, message: str):
        # torchrun would start again what ends with a status.
        restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
        super().__init__(0 if restarts else STOPPED)
        self.message = message


class _EvaluationAbandoned(BaseException):
    """What a signal raises in an evaluation; no handler of errors takes it for one."""


def parse_time(text: str, option: str) -> float:
    """Seconds of ``90s``, ``30m``, ``4h``, ``1.5d``, ``H:MM:SS`` or ``D-HH:MM:SS`` (SLURM's).

    Args:
        text: the time.
        option: of the command line, for the message.

    Raises:
        UsageError: it is none of these, or not above zero.
    """
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    seconds = 0.0
    if number:
        seconds = float(number[1]) * _UNITS[number[2]]
    elif clock:
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if seconds <= 0:
        raise UsageError(
            f"{option} {text!r}: give a time such as 90s, 30m, 4h, 1.5d, 3:30:00 or 1-12:00:00"
        )
    return seconds


def latest_stop(started: float, limit: float) -> float:
    """When a run has to begin to stop: before its limit, by the time that saving may take.

    Args:
        started: by :func:`time.time`.
        limit: in seconds.

    Raises:
        UsageError: the system has no timer for it.
    """
    if _ALARM is None:
        raise UsageError("--time-limit: this system has no timer of processes")
    return started + limit - min(_RESERVE, _SHARE_OF_LIMIT * limit)


class StopRequest:
    """Whether a process has been asked to stop, and by what.

    Attributes:
        reason: name of the signal, or "the time limit"; empty before.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._asked_at = 0.0
        self._evaluating = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: the first asks, a second one ends the process at once.

        Among several processes a second SIGTERM does not: launchers send it to the others when one
        has ended, while the main one may be saving, and SIGKILL to those that take too long.
        """
        at_limit = number == _ALARM
        if self.reason:
            by_launcher = number == signal.SIGTERM and comm.get_world_size() > 1
            later = time.monotonic() - self._asked_at > _SAME_SIGNAL
            if later and not at_limit and not by_launcher:
                _end_at_once(number)
            return
        self.reason = "the time limit" if at_limit else signal.Signals(number).name
        self._asked_at = time.monotonic()
        if self._evaluating:
            raise _EvaluationAbandoned

    @contextlib.contextmanager
    def abandoning(self) -> Iterator[None]:
        """While it lasts, being asked raises, for evaluations, which may take long."""
        self._evaluating = True
        try:
            if self.reason:
                raise _EvaluationAbandoned
            yield
        finally:
            self._evaluating = False


@contextlib.contextmanager
def listening(request: StopRequest, latest: float | None = None) -> Iterator[None]:
    """Has signals, and a point in time, ask for a stop; afterwards they do what they did before.

    Outside of the main thread, where Python handles no signals, nothing asks. Nor does what the
    process has been started to ignore, as ``nohup`` has it ignore that a terminal is closed.

    Args:
        request: what is asked.
        latest: when to ask without a signal, by :func:`time.time`; None for never.
    """
    before: dict[int, Any] = {}
    _listeners.append(request)
    try:
        for number in _heard():
            before[number] = signal.signal(number, request)
        if latest is not None and _ALARM is not None:
            before[_ALARM] = signal.signal(_ALARM, request)
            signal.setitimer(signal.ITIMER_REAL, max(latest - time.time(), 1e-3))
    except ValueError:
        _log.debug("signals are not handled outside of the main thread")
    try:
        yield
    finally:
        _listeners.remove(request)
        if _ALARM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def passing_on() -> Iterator[None]:
    """Passes signals on to the processes that this one has started, and waits for their end."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in _heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[int]:
    """The signals that this process does not ignore, and whose handler is Python's to put back."""
    return [n for n in _SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]


class StopWhenAsked(hooks.HookBase):
    """Saves a checkpoint and ends the run, in all processes, when one of them is asked to stop.

    To stand behind the hook that saves periodically and before evaluations, which it abandons.

    Args:
        request: of this process.
        checkpointer: of the model and the loop.
    """

    def __init__(self, request: StopRequest, checkpointer: Checkpointer):
        self._request = request
        self._checkpointer = checkpointer
        self._group: Any = None  # of all processes, for what has nothing to do with a GPU
        self._trained = False  # an iteration

    def before_train(self) -> None:
        if comm.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo")

    def after_step(self) -> None:
        self._trained = True
        if self._asked_anywhere():
            self._stop("", _WAIT_FOR_CHECKPOINT)

    def abandoning(self, evaluate: Callable[[], dict]) -> Callable[[], dict]:
        """The same evaluation, which being asked to stop ends at once."""

        def run() -> dict:
            try:
                with self._request.abandoning():
                    return evaluate()
            except (RuntimeError, _EvaluationAbandoned):
                if not self._request.reason:
                    raise
                # As to a RuntimeError: another process has ended already.
                self._stop(", an evaluation not finished", _WAIT_IN_EVALUATION)

        return run

    def _asked_anywhere(self) -> bool:
        asked = bool(self._request.reason)
        if self._group is None:
            return asked
        flag = torch.tensor(int(asked))
        dist.all_reduce(flag, dist.ReduceOp.MAX, self._group)
        return bool(flag)

    def _stop(self, note: str, patience: float) -> NoReturn:
        if self._trained and comm.is_main_process():
            self._save()
        _end_children()
        if self._group is not None:
            self._wait_for_all(patience)
        reason = self._request.reason or "another process was asked to stop"
        # The loop counts one more when it is over, before the last evaluation.
        last = min(self.trainer.iter, self.trainer.max_iter - 1)
        done = f"after iteration {last}" if self._trained else "before an iteration"
        raise Stopped(
            f"{reason}: stopped {done}{note}; --resume goes on from "
            f"{self._checkpointer.get_checkpoint_file()}"
        )

    def _wait_for_all(self, patience: float) -> None:
        """Until the main process has saved, and all know: the first that ends has the others ended.

        None waits for one that is gone, and none longer than so many seconds.
        """
        end = time.monotonic() + patience
        sends = comm.is_main_process()
        exchange = dist.isend if sends else dist.irecv
        for other in range(1, comm.get_world_size()) if sends else [0]:
            with contextlib.suppress(RuntimeError):
                left = timedelta(seconds=max(end - time.monotonic(), 0.01))
                work = exchange(torch.zeros(1), other, self._group)
                assert work is not None  # this process is in the group
                work.wait(left)

    def _save(self) -> None:
        """Writes the checkpoint of the iteration, unless it has been."""
        iteration, last = self.trainer.iter, self.trainer.max_iter - 1
        name = "model_final" if iteration >= last else f"model_{iteration:07d}"
        path = os.path.join(self._checkpointer.save_dir, f"{name}.pth")
        known = self._checkpointer.has_checkpoint()
        if not known or self._checkpointer.get_checkpoint_file() != path:
            self._checkpointer.save(name, iteration=iteration)


def _end_at_once(number: int) -> None:
    """Ends this process, as the signal would have without a handler, and those it has started."""
    _end_children()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_children() -> None:
    """Ends the processes that load data for this one."""
    children = [child for child in multiprocessing.active_children() if child.daemon]
    if not children:
        return
    # PyTorch has a handler that raises when one is gone.
    watched = signal.signal(_CHILD, signal.SIG_DFL) if _CHILD is not None else None
    for child in children:
        child.kill()
    for child in children:
        child.join()
    if _CHILD is not None:
        signal.signal(_CHILD, watched)


_listeners: list[StopRequest] = []


def _leave_signals_to_parent() -> None:
    """In a process that loads data: what is sent to the whole group does not end it.

    That would fail the iteration that is being finished. As to its parent's end, it sees to that
    itself.
    """
    if _listeners:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_signals_to_parent)
    # The parent's SIGTERM is blocked too. Before multiprocessing waits for the process:
    atexit.register(_end_children)
