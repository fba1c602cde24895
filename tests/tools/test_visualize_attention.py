"""tools/visualize_attention.py: what is written of pictures and videos, and mistakes."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from dnl_d2.prediction.sources import find_sources
from tests.engine.runs import STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import save_weights
from tests.tools.programs import load

pytestmark = pytest.mark.usefixtures("environment")
BLOCK = "sem_seg_head.context_block"
INSERTS = {
    "MODEL.RESNETS.CONTEXT.NAME": "gc",
    "MODEL.RESNETS.CONTEXT_STAGES.RES4": "[-1]",
}


@pytest.fixture
def show(root, tmp_path, monkeypatch):
    """Returns ``show(*words)``: runs the tool, returns its exit status."""
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = load(root, "visualize_attention")

    def run(*words, output="out", options=YAML_OPTIONS, config=STEM + ".yaml"):
        overrides = as_yaml(options)
        path = tmp_path / f"{os.path.basename(config)}-{len(options)}.pth"
        if not path.exists():
            save_weights(load_config(config, overrides), path)
        model = ["--config-file", config, "--weights", path, "--device", "cpu"]
        folder = ["--output", tmp_path / output] if output else []
        line = [*words, *model, *folder, "--opts", *overrides]
        monkeypatch.setattr(sys, "argv", ["visualize_attention.py", *map(str, line)])
        return tool.main()

    return run


@pytest.fixture
def photo(save, rng):
    return save("in/photo.png", rng.integers(0, 256, (40, 52, 3), dtype=np.uint8))


def test_pictures(show, photo, save, tmp_path, capsys):
    save("in/small.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG no picture")
    assert show(tmp_path / "in", "--pixels", "39,51", "3,4", "--npz") == 1
    streams = capsys.readouterr()
    assert "photo.png: 39,51, 3,4" in streams.out and "1 of 3 files: results are" in streams.out
    assert "broken.png cannot be read" in streams.err and "Traceback" not in streams.err
    assert "small.png: pixel 39,51 (row, column) is outside the picture of 8 rows" in streams.err
    views = [f"{t}_{p}" for t in ("pairwise", "whitened") for p in ("3-4", "39-51")] + ["unary"]
    stem = f"photo_attention_{BLOCK}"
    expected = [f"{stem}_{view}.png" for view in views]
    expected += [f"{stem}.png", f"{stem}.npz", "photo_attention.json"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(expected)
    weights = np.load(tmp_path / "out" / f"{stem}.npz")
    assert sorted(weights) == sorted(views)
    for view in views:
        assert weights[view].shape == (5, 7) and weights[view].sum() == pytest.approx(1, rel=1e-5)
        drawn = np.asarray(Image.open(tmp_path / "out" / f"{stem}_{view}.png"))
        assert drawn.shape == (40, 52, 3)
        marked = (drawn[39, 51] == 255).all(), (drawn[3, 4] == 255).all()
        assert marked == (view.endswith("_39-51"), view.endswith("_3-4"))
    said = json.loads((tmp_path / "out" / "photo_attention.json").read_text())
    assert said["blocks"] == {BLOCK: ["pairwise", "whitened", "unary"]} and said["height"] == 40
    assert said["pixels"][0] == {"row": 39, "column": 51, "predicted": ""}


def test_results_are_not_taken_for_pictures(show, photo, save, tmp_path):
    save("in/grey pixel.png", np.zeros((1, 1), np.uint8))
    assert show(tmp_path / "in") == 0
    names = [source.name for source in find_sources([str(tmp_path)])]
    assert names == ["in/grey pixel", "in/photo"]


def test_pixels_are_chosen_where_none_are_given(show, photo, tmp_path, capsys):
    options = YAML_OPTIONS | INSERTS
    blocks = ["backbone.res4.1.context", BLOCK]
    assert show(photo, "--block", *blocks, options=options) == 0
    said = json.loads((tmp_path / "out" / "photo_attention.json").read_text())
    assert list(said["blocks"]) == blocks and said["blocks"][blocks[0]] == ["unary"]
    printed = capsys.readouterr().out
    for point in said["pixels"]:
        name = f"{point['row']},{point['column']} ({point['predicted']})"
        assert name in printed and point["predicted"]
        assert (
            tmp_path / "out" / f"photo_attention_{BLOCK}_pairwise_{point['row']}-"
            f"{point['column']}.png"
        ).exists()
    assert (tmp_path / "out" / f"photo_attention_{blocks[0]}_unary.png").exists()


def test_the_list(show, capsys):
    assert show("--list", output=None, options=YAML_OPTIONS | INSERTS) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "backbone.res4.1.context: unary",
        f"{BLOCK}: pairwise whitened unary",
    ]


def test_options_may_come_twice(show, photo, tmp_path):
    words = ["--block", "backbone.res4.1.context", "--pixels", "3,4"]
    words += ["--block", BLOCK, "--pixels", "5,6"]
    assert show(photo, *words, options=YAML_OPTIONS | INSERTS) == 0
    said = json.loads((tmp_path / "out" / "photo_attention.json").read_text())
    assert list(said["blocks"]) == ["backbone.res4.1.context", BLOCK] and len(said["pixels"]) == 2


def test_pixels_are_checked_also_where_all_share_a_map(show, photo, tmp_path, capsys):
    words = ["--block", "backbone.res4.1.context", "--pixels", "40,0"]
    assert show(photo, *words, options=YAML_OPTIONS | INSERTS) == 1
    assert "pixel 40,0 (row, column) is outside" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_a_video(show, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    frames = [Image.new("RGB", (40, 32), (n, 90, 0)) for n in (0, 120, 240)]
    path = tmp_path / "x.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    assert show(path, "--pixels", "8,9") == 0
    assert f"x.gif: 8,9, whitened of {BLOCK}" in capsys.readouterr().out
    video = cv2.VideoCapture(str(tmp_path / "out" / f"x_attention_{BLOCK}_whitened.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.read()[1].shape == (32, 40, 3)
    assert show(path, "--term", "unary") == 0
    said = json.loads((tmp_path / "out" / "x_attention.json").read_text())
    assert said["blocks"] == {BLOCK: ["unary"]} and len(said["pixels"]) == 1
    shared = cv2.VideoCapture(str(tmp_path / "out" / f"x_attention_{BLOCK}_unary.mp4")).read()[1]
    assert np.ptp(shared.astype(int), axis=(0, 1)).max() < 200  # no cross, black on white
    assert show(path, "--pixels", "8,90") == 1
    assert "x.gif: pixel 8,90 (row, column) is outside" in capsys.readouterr().err


def test_mistakes_are_one_line(show, photo, capsys):
    fcn = STEM.replace("dnl_", "fcn_") + ".yaml"
    backbone = YAML_OPTIONS | INSERTS
    for words, options, message in (
        (["--block", "sem_seg_head.context"], {}, f"did you mean '{BLOCK}'.* known: {BLOCK}"),
        ([], {"config": fcn}, "ContextSegmentor runs no context block that has"),
        (
            ["--block", "backbone.res4.1.context", "--term", "whitened"],
            {"options": backbone},
            r"--term: backbone\.res4\.1\.context has no whitened map; .*known: unary",
        ),
    ):
        with pytest.raises(UsageError, match=message) as error:
            show(photo, *words, **options)
        assert "\n" not in str(error.value)
    capsys.readouterr()
    for words, message in (
        ([photo, "--pixels", "3;4"], "'3;4' is no ROW,COLUMN"),
        ([], "a picture or folder is missing"),
    ):
        with pytest.raises(SystemExit):
            show(*words)
        assert message in capsys.readouterr().err
