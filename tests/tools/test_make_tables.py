"""The tables in the READMEs are those of configs/results.yaml."""

import os
import sys

import pytest
import yaml

from dnl_d2.errors import UsageError
from tests.tools.programs import load, start

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


@pytest.fixture
def tool(root):
    return load(root, "make_tables")


def test_blocks_are_filled_and_the_rest_stays(tool):
    text = "before\n<!-- results:d_classes -->\nold\n<!-- end -->\nafter\n"
    tables = tool.join({"d": [ROW]}, {})
    got = tool.render(text, tables, path="README.md")
    assert got.startswith("before\n<!-- results:d_classes -->\n| ")
    assert "| DNL | 50.0 | 25.0 |" in " ".join(got.split())
    assert "old" not in got and got.endswith("<!-- end -->\nafter\n")
    assert tool.render(got, tables, path="README.md") == got


def test_published_figures_stand_beside_own_ones(tool):
    rows = [{"config": "d/x", "source": "a zoo", "miou": 78.6, "ms_flip": 80.27}, {"config": "d/y"}]
    tables = tool.join({"d": [ROW | {"config": "d/x.yaml"}]}, {"d": rows})
    text = tool.render("<!-- results:d_published -->\n<!-- end -->", tables, path="x")
    first, second = text.splitlines()[3:5]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (first, second)]
    assert cells[0] == ["`d/x`", "a zoo", "78.60", "-", "80.27", "-", "-", "12.35", "not run", "-"]
    assert cells[1] == ["`d/y`", *["-"] * 6, "not run", "not run", "-"]


def test_detection_has_its_own_columns(tool):
    rows = [
        {"config": "c/x", "source": "a zoo", "box_ap": 37.3, "mask_ap": 34.2, "fps": 10.6},
        {"config": "c/y", "source": "a zoo", "box_ap": 41.0, "mask_ap": 37, "params_m": 46.9},
    ]
    own = {"config": "c/x.yaml", "box_ap": 37.26, "mask_ap": 34.0}
    tables = tool.join({"r": [own]}, {"c": rows})
    assert "c_published" not in tables
    text = tool.render("<!-- results:c_detection -->\n<!-- end -->", tables, path="x")
    lines = text.splitlines()
    titles, first, second = (
        [cell.strip() for cell in lines[k].strip("|").split("|")] for k in (1, 3, 4)
    )
    assert titles[2:4] == ["box AP", "mask AP"] and titles[-1] == "weights"
    assert titles[-3:-1] == ["own box AP", "own mask AP"]
    assert first == ["`c/x`", "a zoo", "37.3", "34.2", "-", "10.6", "-", "-", "37.3", "34.0", "-"]
    assert second == [
        "`c/y`",
        "a zoo",
        "41.0",
        "37.0",
        "-",
        "-",
        "46.9",
        "-",
        *["not run"] * 2,
        "-",
    ]


def test_a_row_links_to_its_published_weights(tool):
    file = tool.of_recipe("cityscapes/dnl_r50-d8_40k_cityscapes-512x1024")
    rows = [{"config": file.recipe}]
    text = tool.render(
        "<!-- results:d_published -->\n<!-- end -->", tool.join({}, {"d": rows}), path="x"
    )
    assert f"[`mmseg://dnl_r50-d8_512x1024_40k_cityscapes`]({file.address})" in text


def test_overview_has_figure_commit_and_hardware(tool):
    got = tool.overview([ROW])
    for part in ("12.3", "`abc`", "`camvid/x.yaml`", "Hardware: a machine."):
        assert part in got


def test_costs_stand_on_the_page_of_each_block_and_together(tool):
    block = {"block": "nl", "place": "head", "options": {"norm": "BN"}, "channels": 8,
             "size": "4x5", "parameters": 1500, "gflops": 0.256, "forward_ms": 1.6,
             "training_ms": 20.2}  # fmt: skip
    model = {"config": "d/x", "parameters": 2_040_000, "gflops": 7.6}
    content = {"hardware": "a machine", "models": [model],
               "blocks": [block, block | {"block": "gc", "options": {}}]}  # fmt: skip
    tables = tool.cost_tables(content, {"d": [{"config": "d/x", "miou": 70.0, "fps": 2.5}]})
    assert {name: len(rows) for name, rows in tables.items()} == {
        "nl_costs": 1, "gc_costs": 1, "all_costs": 2, "d_models": 1
    }  # fmt: skip
    got = " ".join(tool.costs(tables["nl_costs"]).split())
    assert "| `nl` | head | norm BN | 8x4x5 | 2 | 0.26 | 2 | 20 |" in got
    assert got.endswith("Times: a machine.")
    assert "| `d/x` | 2.0 | 8 | 70.00 | - | 2.5 |" in " ".join(
        tool.models(tables["d_models"]).split()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results:d_classes -->\nold\n", "block d_classes has no <!-- end -->"),
        (
            "<!-- results:d_classes -->\ntext\n<!-- results:d_overview -->\n<!-- end -->\n",
            "block d_classes has no <!-- end -->",
        ),
        ("<!-- results:e_classes -->\n<!-- end -->\n", "no table 'e_classes'; there are d_c"),
        ("<!-- results:d_graph -->\n<!-- end -->\n", "no table 'd_graph'; there are d_c"),
        ("<!-- results:d_overview -->\n<!-- end -->\n", "a row of d_overview lacks 'seed'"),
    ],
)
def test_mistakes_name_file_and_block(tool, text, message):
    row = {key: value for key, value in ROW.items() if key != "seed"}
    tables = tool.join({"d": [row]}, {})
    with pytest.raises(UsageError, match=f"^README.md: .*{message}"):
        tool.render(text, tables, path="README.md")


@pytest.mark.parametrize(
    ("content", "message"),
    [("d: [{miou: 1}]", "without config"), ("d: []", "d has no row"), ("d: [", "cannot be read")],
)
def test_broken_figures_are_one_line(tool, tmp_path, content, message):
    tool.ROOT = str(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/results.yaml").write_text(content)
    with pytest.raises(UsageError, match=rf"results\.yaml.*{message}") as caught:
        tool._read("results.yaml")
    assert "\n" not in str(caught.value)


def test_all_files_are_filled_or_none(tool, tmp_path, monkeypatch):
    tool.ROOT, tool.FILES = str(tmp_path), ("a.md", "b.md")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/results.yaml").write_text(yaml.safe_dump({"d": [ROW]}))
    (tmp_path / "configs/published.yaml").write_text("")
    (tmp_path / "docs/scripts").mkdir(parents=True)
    (tmp_path / "docs/scripts/costs.yaml").write_text("{hardware: x, blocks: [], models: []}")
    block = "<!-- results:d_classes -->\n<!-- end -->\n"
    (tmp_path / "a.md").write_text(block)
    (tmp_path / "b.md").write_text(block.replace("<!-- end -->", ""))
    monkeypatch.setattr(sys, "argv", ["make_tables.py"])
    with pytest.raises(UsageError, match=r"b\.md: block d_classes has no"):
        tool.main()
    assert (tmp_path / "a.md").read_text() == block
    (tmp_path / "b.md").write_text(block)
    tool.main()
    assert all("| DNL " in (tmp_path / name).read_text() for name in tool.FILES)


def test_readmes_are_up_to_date(root):
    result = start(root, "make_tables", "--check")
    assert result.returncode == 0, result.stderr


def test_results_name_configs_that_exist(root):
    results = yaml.safe_load((root / "configs" / "results.yaml").read_text())
    rows = [row for rows in results.values() for row in rows]
    assert rows
    for row in rows:
        assert os.path.isfile(root / "configs" / row["config"]), row["config"]
        assert set(ROW) <= set(row)
