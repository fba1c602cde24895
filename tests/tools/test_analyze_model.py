"""The command line over dnl_d2.analysis."""

import json
import os
import sys

import pytest

from tests.tools.programs import load, start

YAML = "configs/camvid/gc_r18w32-d8_700_camvid-240x320.yaml"


@pytest.fixture
def run(root, monkeypatch, capsys):
    """Runs the tool in this process: arguments -> what it printed."""
    tool = load(root, "analyze_model")
    monkeypatch.chdir(root)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["analyze_model.py", *map(str, arguments)])
        tool.main(tool.parse_args())
        return capsys.readouterr().out

    return call


def test_yaml_and_lazy_configs_give_the_same(run, tmp_path):
    found = []
    for suffix in ("yaml", "py"):
        out = tmp_path / f"{suffix}.json"
        config = YAML.replace("yaml", suffix)
        printed = run("--config-file", config, "--size", 240, 320, "--json", out)
        found.append(json.loads(out.read_text()))
        assert found[-1].pop("config") == config
        assert f"{found[-1]['total']['multiply_adds'] / 1e9:.1f} GFLOPs" in printed
    assert found[0] == found[1]
    assert len(os.listdir(tmp_path)) == 2


def test_overrides_size_and_regions(run, tmp_path):
    out = tmp_path / "r50.json"
    arguments = ["--size", 64, 96, "--proposals", 7, "--detections", 2, "--json", out]
    config = "configs/coco/mask_rcnn_r50_fpn_gc_r16_c3-c5_syncbn_1x.yaml"
    printed = run("--config-file", config, *arguments, "MODEL.RESNETS.DEPTH", 101)
    found = json.loads(out.read_text())
    assert (found["proposals"], found["detections"], found["size"]) == (7, 2, [64, 96])
    assert found["overrides"] == ["MODEL.RESNETS.DEPTH", "101"]
    # GCNet's table: 68.1 M with R-101.
    assert found["total"]["parameters"]["total"] == pytest.approx(68.1e6, abs=0.1e6)
    assert "68.18 M parameters" in printed and "7 proposals" in printed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config-file", "no.yaml"], "--config-file no.yaml: no such file"),
        (["--config-file", YAML, "--size", "0", "9"], "height must be 1 or more, got 0"),
        (["--config-file", YAML, "--json", "/no/folder/x.json"], "there is no folder '/no/folder'"),
        (
            ["--config-file", YAML, "MODEL.DEPTH", "5"],
            "command line: Non-existent key: MODEL.DEPTH",
        ),
    ],
)
def test_mistakes(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)


def test_a_mistake_is_one_line(root):
    result = start(root, "analyze_model", "--config-file", "no.yaml")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]  # libraries may warn before
    assert last == "analyze_model.py: error: --config-file no.yaml: no such file"
