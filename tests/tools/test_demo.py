"""The demo from end to end, with a budget too small to learn anything."""

import pytest
from PIL import Image

from tests.tools.programs import start


@pytest.mark.slow
def test_demo_prints_a_table_and_draws(root, tmp_path):
    result = start(root, "demo", "--iterations", 2, "--output", tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
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
