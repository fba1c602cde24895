"""The tables in the READMEs are those of configs/results.yaml."""

import importlib.util
import os
import subprocess
import sys

import yaml

ROW = {
    "method": "dnl",
    "config": "camvid/x.yaml",
    "miou": 12.345,
    "iou": {"sky": 50.0, "road": 25.04},
    "iterations": 10,
    "seconds_per_iteration": 0.5,
    "peak_memory_mib": 7,
    "commit": "abc",
    "seed": 1,
    "hardware": "a machine",
}


def module(root):
    spec = importlib.util.spec_from_file_location("make_tables", root / "tools" / "make_tables.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_blocks_are_filled_and_the_rest_stays(root):
    text = "before\n<!-- results:d_classes -->\nold\n<!-- end -->\nafter\n"
    tables = module(root).join({"d": [ROW]}, {})
    got = module(root).render(text, tables)
    assert got.startswith("before\n<!-- results:d_classes -->\n| ")
    assert "| DNL | 50.0 | 25.0 |" in " ".join(got.split())
    assert "old" not in got and got.endswith("<!-- end -->\nafter\n")
    assert module(root).render(got, tables) == got


def test_published_figures_stand_beside_own_ones(root):
    rows = [{"config": "d/x", "source": "a zoo", "miou": 78.6, "ms_flip": 80.27}, {"config": "d/y"}]
    tables = module(root).join({"d": [ROW | {"config": "d/x.yaml"}]}, {"d": rows})
    text = module(root).render("<!-- results:d_published -->\n<!-- end -->", tables)
    first, second = text.splitlines()[3:5]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (first, second)]
    assert cells[0] == ["`d/x`", "a zoo", "78.60", "-", "80.27", "-", "-", "12.35", "not run"]
    assert cells[1] == ["`d/y`", *["-"] * 6, "not run", "not run"]


def test_overview_has_figure_commit_and_hardware(root):
    got = module(root).overview([ROW])
    for part in ("12.3", "`abc`", "`camvid/x.yaml`", "Hardware: a machine."):
        assert part in got


def test_readmes_are_up_to_date(root):
    result = subprocess.run(
        [sys.executable, "tools/make_tables.py", "--check"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_results_name_configs_that_exist(root):
    results = yaml.safe_load((root / "configs" / "results.yaml").read_text())
    rows = [row for rows in results.values() for row in rows]
    assert rows
    for row in rows:
        assert os.path.isfile(root / "configs" / row["config"]), row["config"]
        assert set(ROW) <= set(row)
