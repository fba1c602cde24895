"""tools/predict.py: what is written, and what becomes of files that cannot be read."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from tests.engine.runs import STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import save_weights
from tests.tools.programs import load

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def predict(root, tmp_path, monkeypatch):
    """Returns ``predict(*sources)``: runs the tool, returns its exit status."""
    overrides = as_yaml(YAML_OPTIONS)
    weights = save_weights(load_config(STEM + ".yaml", overrides), tmp_path / "weights.pth")
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = load(root, "predict")

    def run(*sources, output="out", weights=weights):
        options = ["--config-file", STEM + ".yaml", "--weights", weights, "--device", "cpu"]
        words = [*options, "--output", str(tmp_path / output), *sources, "--opts", *overrides]
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
        return tool.main()

    return run


def test_pictures_of_every_kind(predict, save, rng, tmp_path, capsys):
    array = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    save("in/a.png", array)
    save("in/deep/grey.jpg", array[..., 0])
    save("in/16 bits.png", array[..., 0].astype(np.uint16) * 256)
    save("in/one pixel.png", array[:1, :1])
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG no picture")
    (tmp_path / "in" / "notes.txt").write_text("none")
    assert predict(tmp_path / "in") == 1
    streams = capsys.readouterr()
    assert "4 of 5 files: results are in" in streams.out
    assert "broken.png cannot be read" in streams.err and "Traceback" not in streams.err
    assert "dataset" not in streams.err  # a photograph belongs to none
    written = sorted(os.listdir(tmp_path / "out"))
    assert [name for name in written if name.startswith("a")] == [
        "a.json", "a_labels.png", "a_overlay.png", "a_side_by_side.png"
    ]  # fmt: skip
    assert (tmp_path / "out" / "deep" / "grey_labels.png").exists()
    labels = np.asarray(Image.open(tmp_path / "out" / "a_labels.png"))
    shares = json.loads((tmp_path / "out" / "a.json").read_text())["shares"]
    assert labels.shape == (40, 52) and sum(shares.values()) == pytest.approx(1)
    assert max(shares.values()) == pytest.approx(np.bincount(labels.ravel()).max() / labels.size)
    assert predict(tmp_path / "in" / "a.png") == 0  # once more, over what is there


def test_an_animation(predict, tmp_path):
    frames = [Image.new("RGB", (40, 32), (n, 90, 0)) for n in (0, 120, 240)]
    path = tmp_path / "x.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    assert predict(path) == 0
    assert len(json.loads((tmp_path / "out" / "x.json").read_text())["frames"]) == 3
    assert os.path.getsize(tmp_path / "out" / "x_overlay.mp4") > 0


def test_mistakes_are_one_line(predict, save, tmp_path):
    save("in/a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"--output .*/in is a folder of the pictures"):
        predict(tmp_path / "in" / "a.png", output="in")
    save("above/sub/a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=r"above is a folder of the pictures"):
        predict(tmp_path / "above", output="above")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: cannot be made a folder"):
        predict(tmp_path / "in", output="file")
    with pytest.raises(UsageError, match="no such file or folder"):
        predict(tmp_path / "none.png")
    with pytest.raises(UsageError, match=r"none.pth"):
        predict(tmp_path / "in", weights=tmp_path / "none.pth")
