"""How mistakes are said."""

import pytest
from torch.utils.data import DataLoader

import dnl_d2.files  # noqa: F401  (its kind of error)
from dnl_d2.errors import (
    UsageError,
    ending_in_one_line,
    one_line,
    shortened,
    wrapped_message,
)

NAME = "image a\nb\x1b[2J.png is broken: replace it"
SHOWN = "image a\\nb\\x1b[2J.png is broken: replace it"


class Broken:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise UsageError(NAME)


def test_a_name_with_a_line_break_stays_on_its_line():
    assert one_line(UsageError(NAME)) == SHOWN
    assert one_line(UsageError("caf\u00e9 \u56fe.png")) == "caf\u00e9 \u56fe.png"
    with pytest.raises(SystemExit) as ended, ending_in_one_line("x.py"):
        raise UsageError(NAME)
    assert ended.value.code == f"x.py: error: {SHOWN}"


def test_the_message_is_taken_out_of_a_process_s_traceback():
    with pytest.raises(UsageError, match="Traceback") as raised:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert one_line(raised.value) == SHOWN


def test_an_empty_message_has_its_name():
    assert one_line(UsageError()) == "UsageError"


def test_the_message_of_any_kind_is_taken_out():
    trace = (
        "-- Process 1 terminated with the following error:\nTraceback\n  raise WriteError(f'...')\n"
    )
    assert wrapped_message(f"{trace}dnl_d2.files.WriteError: w.pth: full\n") == "w.pth: full\n"
    assert one_line(Exception(f"{trace}dnl_d2.files.WriteError: w.pth: full\n")) == "w.pth: full"
    assert wrapped_message(f"{trace}ZeroDivisionError: division by zero") is None


def test_a_long_reason_keeps_its_ends():
    text = shortened("begin " + "x\n" * 1000 + "end", 100)
    assert len(text) <= 100 and text.startswith("begin") and text.endswith("end")
    assert shortened("a\nb") == "a b"
