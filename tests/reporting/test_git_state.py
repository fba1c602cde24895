"""Which commit code is of."""

import os
import subprocess

import pytest

from dnl_d2.reporting.git_state import git_state


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A working copy with one committed file."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("installed/\n")
    for words in (
        "init -q -b trunk",
        "add .",
        "-c user.name=n -c user.email=e -c commit.gpgsign=false commit -q -m first",
    ):
        subprocess.run(["git", *words.split()], cwd=folder, check=True)
    return folder


def test_a_clean_copy(copy):
    state = git_state(str(copy / "code.py"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=copy, capture_output=True, text=True)
    assert (state.folder, state.commit) == (str(copy), head.stdout.strip())
    assert (state.branch, state.changed, state.diff) == ("trunk", (), b"")


def test_changes_can_be_applied_again(copy, tmp_path):
    (copy / "code.py").write_text("x = 2\n")
    (copy / "new.py").write_text("")
    state = git_state(str(copy / "code.py"))
    assert [*state.changed] == [" M code.py", "?? new.py"]
    (copy / "code.py").write_text("x = 1\n")
    (tmp_path / "a.diff").write_bytes(state.diff)
    subprocess.run(["git", "apply", str(tmp_path / "a.diff")], cwd=copy, check=True)
    assert (copy / "code.py").read_text() == "x = 2\n"


def test_any_line_ends_and_letters_can_be_applied_again_whatever_git_shows_to_its_user(
    copy, tmp_path
):
    lines = "# caf\xe9\r\nx = 2\r\n".encode("latin-1")
    (copy / "code.py").write_bytes(lines)
    for setting in ("color.ui=always", "diff.noprefix=true"):
        subprocess.run(["git", "config", *setting.split("=")], cwd=copy, check=True)
    (tmp_path / "a.diff").write_bytes(git_state(str(copy / "code.py")).diff)
    subprocess.run(["git", "checkout", "-q", "code.py"], cwd=copy, check=True)
    subprocess.run(["git", "apply", str(tmp_path / "a.diff")], cwd=copy, check=True)
    assert (copy / "code.py").read_bytes() == lines


def test_much_is_cut(copy, monkeypatch):
    monkeypatch.setattr("dnl_d2.reporting.git_state._LARGEST", 20)
    (copy / "code.py").write_text("x = 2\n" * 99)
    for number in range(60):
        (copy / f"{number}.py").write_text("")
    state = git_state(str(copy / "code.py"))
    assert state.diff == b"" and len(state.changed) == 51 and state.changed[-1] == "... 11 more"


def test_what_git_does_not_keep_has_no_state(copy, tmp_path, monkeypatch):
    (copy / "installed").mkdir()
    (copy / "installed" / "package.py").write_text("")
    (tmp_path / "elsewhere.py").write_text("")
    assert git_state(str(copy / "installed" / "package.py")) is None
    assert git_state(str(tmp_path / "elsewhere.py")) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(str(copy / "code.py")) is None


def test_looking_writes_nothing_to_the_repository(copy):
    """Nor leaves a lock behind where the run is killed or the disk is full."""
    (copy / "code.py").write_text("x = 2\n")
    os.utime(copy / ".gitignore", (1, 1))  # git would note the new time
    before = (copy / ".git/index").read_bytes()
    assert git_state(str(copy / "code.py")).diff
    assert (copy / ".git/index").read_bytes() == before
