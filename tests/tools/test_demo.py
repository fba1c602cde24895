"""The demo from end to end, with a budget too small to learn anything."""

from functools import partial

import pytest
from PIL import Image

from dnl_d2 import synthetic
from tests.engine.runs import environment  # noqa: F401
from tests.tools.programs import run_file, start


@pytest.mark.usefixtures("environment")
def test_demo_prints_a_table_and_draws(root, tmp_path, monkeypatch, capsys):
    """On a fiftieth of its pictures."""
    few = partial(synthetic.generate_dataset, train=8, val=12)
    monkeypatch.setattr(synthetic, "generate_dataset", few)
    words = ["--iterations", "2", "--output", str(tmp_path)]
    assert run_file([str(root / "tools/demo.py"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = [
        n
        for n, line in enumerate(lines)
        if line.startswith("note: 2 iterations are fewer than the recipe's 800")
    ]
    assert len(notes) == 2 and notes[0] == 0
    for method in ("FCN", "DNL"):
        (row,) = [line.split() for line in lines if line.startswith(method + " ")]
        assert all(0 <= float(value) <= 100 for value in row[3:])
        assert len(row) == 4 + 8
    assert Image.open(tmp_path / "demo.png").size[0] > 500


def test_a_wrong_budget_is_refused(root):
    result = start(root, "demo", "--iterations", 0)
    assert result.returncode == 2 and "--iterations must be at least 1" in result.stderr
