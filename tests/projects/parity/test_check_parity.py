"""The table of differences to mmsegmentation, in its short form."""

import json

import pytest

from dnl_d2_parity.comparison import check


@pytest.mark.slow
def test_short_table(run_tool, tmp_path):
    out = tmp_path / "table.json"
    result = run_tool("check_parity.py", "--short", "--models", "gc", "--json", str(out))
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert [row["model"] for row in rows] == ["gc r50"]
    assert "| gc r50 " in result.stdout


def test_all_combinations_are_listed():
    assert len(set(check.ALL)) == 4 * 2 * 2 * 3
    assert set(check.SHORT) <= set(check.ALL)
    assert {model[0] for model in check.SHORT} == set(check.PUBLISHED)


def test_a_missed_bar_fails(monkeypatch, capsys):
    good = dict.fromkeys(check.BARS, 0)
    row = {"model": "gc r50", "align": "on", "classes": 150, "matched": 366, **good}
    monkeypatch.setattr(check, "compare", lambda *_: row)
    assert check.main(["--short", "--models", "gc"]) == 0
    for name, bar in check.BARS.items():
        for value in (bar * 1.1 + 1e-3, float("nan")):
            monkeypatch.setattr(check, "compare", lambda *_, n=name, v=value: row | {n: v})
            assert check.main(["--short", "--models", "gc"]) == 1
            assert f"gc r50 on 150: too large: {name}\n" in capsys.readouterr().out
