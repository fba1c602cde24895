"""Files are written whole or not at all."""

import os

import pytest

from dnl_d2.errors import UsageError
from dnl_d2.files import write_text


def test_a_file_is_replaced(tmp_path):
    path = str(tmp_path / "a.txt")
    for text in ("old", "new"):
        write_text(path, text)
    assert (tmp_path / "a.txt").read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_what_is_no_file_stays(tmp_path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    for path in (pipe, str(tmp_path)):
        with pytest.raises(UsageError, match=r"cannot be written \(it is no file"):
            write_text(path, "text")
    assert os.listdir(tmp_path) == ["pipe"] and not os.path.isfile(pipe)
