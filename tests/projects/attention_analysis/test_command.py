"""The command on models of a few channels: files, pictures, and what it refuses."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from dnl_d2_attention.command import main
from tests.engine.runs import (  # noqa: F401
    LAZY_OPTIONS,
    STEM,
    YAML_OPTIONS,
    as_lazy,
    as_yaml,
    environment,
    pictures,
)
from tests.prediction.test_predictor import DETECTOR, save_weights

pytestmark = pytest.mark.usefixtures("environment")
BLOCK = "sem_seg_head.context_block"


@pytest.fixture
def command(tmp_path):
    """Returns ``command(*options)``, which analyses an untrained segmentor of YAML."""

    def run(*options, overrides=()):
        small = [*as_yaml(YAML_OPTIONS, output=tmp_path), *overrides]
        arguments = ["--config-file", f"{STEM}.yaml", "--output", str(tmp_path / "out"), *options]
        main([*arguments, *small])
        return tmp_path / "out"

    return run


def read(folder):
    content = json.loads((folder / "attention.json").read_text())
    found = {(s["term"], s["statistic"]): s["mean"] for s in content["statistics"]}
    return content, found


def test_files_hold_the_same_figures_and_a_picture(command, capsys):
    folder = command("--untrained", "--max-images", "2")
    content, found = read(folder)
    assert content["settings"]["weights"] == "random" and len(content["blocks"]) == 1
    with open(folder / "attention.csv") as file:
        rows = {(r["term"], r["statistic"]): float(r["mean"]) for r in csv.DictReader(file)}
    assert rows == pytest.approx(found)
    with open(folder / "per_picture.csv") as file:
        each = [float(r["value"]) for r in csv.DictReader(file) if r["statistic"] == "own_region"]
    assert len(each) == 2 * 3  # pictures, terms
    assert 0 < found["whitened", "own_region"] < 1
    assert found["uniform", "reach"] == pytest.approx(found["unary", "reach"], rel=0.2)
    assert found["logits", "pairwise_share"] + found["logits", "unary_share"] == pytest.approx(1)
    # The block starts as an identity: there is nothing that it adds.
    assert ("output", "cosine_distance") not in found
    assert any("adds is nothing" in what for what in content["left_out"])
    out = capsys.readouterr().out
    assert "| own region" in out and "left out (in 2 pictures)" in out
    assert Image.open(folder / f"{BLOCK}.png").size[0] > 900


def test_windows_are_left_aside(command):
    slide = ["TEST.SLIDE.WINDOW", "(32,32)", "TEST.SLIDE.STRIDE", "(16,16)"]
    content, found = read(command("--untrained", "--max-images", "1", overrides=slide))
    (size,) = content["blocks"].values()
    assert size.endswith(" 9x12") and ("unary", "own_region") in found  # windows would be 4x4


def test_lazy_configs_weights_and_pictures_of_ones_own(tmp_path, save, capsys):
    options = as_lazy(LAZY_OPTIONS, output=tmp_path)
    weights = save_weights(load_config(f"{STEM}.py", options), tmp_path / "weights.pth")
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 56, 3)), ("b.png", (64, 48))):  # one of them is grey
        save(f"photos/{name}", rng.integers(0, 256, size, np.uint8))
    (tmp_path / "photos/notes.txt").write_text("no picture")
    main(
        [
            *("--config-file", f"{STEM}.py", "--weights", weights),
            *("--images", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), *options),
        ]
    )
    content, found = read(tmp_path / "out")
    assert "own_region" not in {statistic for _, statistic in found}
    assert len(content["unreadable"]) == 1 and "notes.txt" in content["unreadable"][0]
    assert "not read: " in capsys.readouterr().out


def test_a_detector_has_regions_of_objects(root, tmp_path, pictures, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))
    config = str(root / "configs" / f"{DETECTOR}.yaml")
    options = as_yaml({}, output=tmp_path)
    main(
        [
            *("--config-file", config, "--untrained", "--max-images", "1"),
            *("--output", str(tmp_path / "out"), *options),
        ]
    )
    content, found = read(tmp_path / "out")
    assert all("GlobalContextBlock" in what for what in content["blocks"].values())
    assert len(content["blocks"]) == len(os.listdir(tmp_path / "out")) - 3
    assert found["unary", "own_region_chance"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--untrained", "--block", "nothing"], "no context block 'nothing'; it has"),
        (["--untrained", "--dataset", "nothing"], "'nothing' is not registered"),
        (["--untrained", "--images", "nowhere"], "nowhere does not exist; overrides"),
        (["--untrained", "--max-images", "0"], "--max-images must be 1 or more"),
        (["--untrained", "--dataset", "x", "--images", "y"], "exclude each other"),
    ],
)
def test_what_it_refuses(command, options, message):
    with pytest.raises(UsageError, match=message):
        command(*options)
    with pytest.raises(SystemExit):  # neither weights nor --untrained
        command()


def test_an_analysis_is_not_overwritten(command, tmp_path):
    before = (command("--untrained", "--max-images", "1") / "attention.json").read_bytes()
    with pytest.raises(UsageError, match=r"out holds an analysis .*: name another folder"):
        command("--untrained")
    assert (tmp_path / "out/attention.json").read_bytes() == before


def test_a_model_without_blocks(tmp_path):
    config = f"{STEM.replace('dnl', 'fcn')}.yaml"
    options = ["--untrained", "--output", str(tmp_path), *as_yaml(YAML_OPTIONS)]
    with pytest.raises(UsageError, match="has no context block: take a config with one"):
        main(["--config-file", config, *options])
