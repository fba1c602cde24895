"""The table of differences to mmsegmentation, in its short form."""

import importlib.util
import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def module(root):
    spec = importlib.util.spec_from_file_location(
        "check_parity", root / "tools" / "check_parity.py"
    )
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.slow
def test_short_table(root, tmp_path):
    out = tmp_path / "table.json"
    result = subprocess.run(
        [sys.executable, "tools/check_parity.py", "--short", "--json", str(out)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert [row["model"] for row in rows] == ["nl r50", "gc r50", "dnl r101", "ann r50"]
    assert all(f"| {row['model']} " in result.stdout for row in rows)


def test_all_combinations_are_listed(module):
    assert len(set(module.ALL)) == 4 * 2 * 2 * 3
    assert set(module.SHORT) <= set(module.ALL)


def test_a_missed_bar_fails(module, monkeypatch, capsys):
    good = dict.fromkeys(module.BARS, 0)
    row = {"model": "gc r50", "align": "on", "classes": 150, "matched": 366, **good}
    monkeypatch.setattr(module, "compare", lambda *_: row)
    assert module.main(["--short", "--models", "gc"]) == 0
    for name, bar in module.BARS.items():
        for value in (bar * 1.1 + 1e-3, float("nan")):
            monkeypatch.setattr(module, "compare", lambda *_, n=name, v=value: row | {n: v})
            assert module.main(["--short", "--models", "gc"]) == 1
            assert f"gc r50 on 150: too large: {name}\n" in capsys.readouterr().out
