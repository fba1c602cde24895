"""``run.json``: one entry for each command, and none lost."""

import json
import sys

import torch

from dnl_d2.reporting import history
from dnl_d2.reporting.git_state import GitState
from dnl_d2.reporting.history import RunHistory


def entries(folder):
    return json.loads((folder / "run.json").read_text())


def test_entries_are_added(tmp_path, monkeypatch):
    state = GitState("/code", "abc", "main", (" M x.py",), b"a diff\n")
    monkeypatch.setattr(history, "git_state", lambda path: state)
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", "a b.yaml"])
    torch.manual_seed(7)
    first = RunHistory(str(tmp_path))
    first.begin(kind="training", from_iteration=0)
    assert "ended" not in entries(tmp_path)[0]  # as it stays where a run is killed
    second = RunHistory(str(tmp_path))
    second.begin(kind="training", from_iteration=5)
    second.end(reached_iteration=9)
    one, two = entries(tmp_path)
    assert (one["number"], two["number"]) == (1, 2) and "ended" not in one
    assert two["reached_iteration"] == 9 and two["ended"] >= two["started"]
    assert one["command"] == [sys.executable, "train_net.py", "--config-file", "a b.yaml"]
    assert one["seed"] == 7 and one["versions"]["torch"] == torch.__version__
    (code,) = two["code"]
    assert (code["commit"], code["changed"]) == ("abc", [" M x.py"])
    assert (tmp_path / code["diff"]).read_text() == "a diff\n" and code["diff"] == "run-2.diff"


def test_a_history_that_cannot_be_read_is_not_written_over(tmp_path, caplog):
    for content in ("{}", "broken"):
        (tmp_path / "run.json").write_text(content)
        mine = RunHistory(str(tmp_path))
        mine.begin(kind="training")
        mine.end()
        assert (tmp_path / "run.json").read_text() == content
    assert caplog.text.count("run.json is not written") == 2
    assert caplog.text.count("is not a list of runs: move it away") == 2


def test_a_run_that_ends_after_a_later_one_began_keeps_its_place(tmp_path):
    first, second = RunHistory(str(tmp_path)), RunHistory(str(tmp_path))
    first.begin(kind="training")
    second.begin(kind="evaluation")
    second.end()
    first.end()
    assert [(e["number"], e["kind"], "ended" in e) for e in entries(tmp_path)] == [
        (1, "training", True), (2, "evaluation", True),
    ]  # fmt: skip
