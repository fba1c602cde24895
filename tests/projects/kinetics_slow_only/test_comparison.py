"""Runs beside each other."""

import json

import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.comparison import as_table, draw_comparison, read_curves


@pytest.fixture
def runs(tmp_path):
    folders = []
    for name, best in (("one", 90.0), ("two", 25.0)):
        rows = [
            {"iteration": 9, "total_loss": 1.4},
            {"iteration": 19, "total_loss": 0.5, "classification/top1": best},
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
        folders.append(str(tmp_path / name))
    return folders


def test_table_and_picture(runs, tmp_path):
    assert read_curves(runs[0])["total_loss"] == [(9, 1.4), (19, 0.5)]
    assert as_table(runs).splitlines()[2:] == [
        "| one | 90.00 | 0.500 | 19 |",
        "| two | 25.00 | 0.500 | 19 |",
    ]
    draw_comparison(runs, str(tmp_path / "curves.png"), chance=25.0)
    assert Image.open(tmp_path / "curves.png").size == (1100, 396)


def test_what_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"metrics.json: no figures of a run"):
        as_table([str(tmp_path)])
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "total_loss": 2}')
    with pytest.raises(UsageError, match="no accuracy of classes yet"):
        as_table([str(tmp_path)])
