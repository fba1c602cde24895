"""Processes of their own: what they answer, and what is told when they fail or die."""

import os
import signal
from functools import partial

import pytest

from dnl_d2_parity.benchmarks.processes import Failed, in_own_process, own_process


def test_one_answer():
    assert in_own_process(abs, -3) == 3
    assert in_own_process(os.getpid) != os.getpid()


def test_failures_are_told():
    with pytest.raises(Failed, match=r"^TypeError: bad operand") as failed:
        in_own_process(abs, "x")
    assert failed.value.status is None and "Traceback" in failed.value.details


def test_deaths_are_told():
    with pytest.raises(Failed, match=r"status 3$") as failed:
        in_own_process(os._exit, 3)
    assert failed.value.status == 3 and not failed.value.details
    with pytest.raises(Failed, match="out of memory"):
        in_own_process(signal.raise_signal, signal.SIGKILL)


def test_several_answers_of_one_process():
    with own_process(_counter, 5) as ask:
        first, second = ask(), ask()
    assert [first[0], second[0]] == [6, 7]
    assert first[1] == second[1] != os.getpid()


def test_what_fails_while_it_is_made_is_told():
    with own_process(partial(_counter, 1), 2) as ask, pytest.raises(Failed, match="TypeError"):
        ask()


def _counter(start):
    numbers = iter(range(start + 1, start + 9))
    return lambda: (next(numbers), os.getpid())
