"""Runs beside each other."""

import json

import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.reporting.comparison import compare_text, draw_comparison, read_runs


@pytest.fixture
def folders(tmp_path):
    """Two runs that share one of their figures."""
    for name, figures, more in (("a", [10, 30, 20], "bbox/AP"), ("b", [5, 40, 50], "x/AP")):
        folder = tmp_path / name
        folder.mkdir()
        lines = []
        for number, figure in enumerate(figures):
            lines.append({"iteration": 10 * number, "total_loss": 3.0 - number})
            lines.append({"iteration": 10 * number, "sem_seg/mIoU": figure, more: 1.0})
        (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [str(tmp_path / "a"), str(tmp_path / "b")]


def test_the_last_and_the_best_of_each(folders, tmp_path):
    metric, runs = read_runs(folders)
    assert metric == "sem_seg/mIoU" and list(runs) == ["a", "b"]
    header, _, *rows = compare_text(metric, runs).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert "sem_seg/mIoU" in header
    assert cells == [
        ["a", "20.00", "30.00", "10", "1", "20"],
        ["b", "50.00", "50.00", "20", "1", "20"],
    ]
    draw_comparison(metric, runs, str(tmp_path / "c.png"), chance=12.5)
    assert Image.open(tmp_path / "c.png").size[0] > 500


def test_folders_of_one_name_have_their_whole_path(folders, tmp_path):
    (tmp_path / "b/a").mkdir()
    (tmp_path / "b/a/metrics.json").write_bytes((tmp_path / "a/metrics.json").read_bytes())
    assert list(read_runs([folders[0], f"{folders[1]}/a"])[1]) == [folders[0], f"{folders[1]}/a"]


def test_what_is_no_run_or_has_no_such_figure(folders, tmp_path):
    with pytest.raises(UsageError, match=r"is .*nowhere the output folder of a run"):
        read_runs([*folders, str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="do not all have 'bbox/AP'; they have in common: sem_seg"):
        read_runs(folders, "bbox/AP")
    (tmp_path / "b/metrics.json").write_text("")
    with pytest.raises(UsageError, match="have in common: no figure"):
        read_runs(folders)
