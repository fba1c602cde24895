"""The serving example, in a process where neither PyTorch nor this library can be imported."""

import ast
import runpy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import dnl_d2
from dnl_d2.engine import load_config
from tests.engine.runs import STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import save_weights
from tests.processes import with_root

pytestmark = pytest.mark.usefixtures("environment")
_START = """
import runpy, sys
for name in ("torch", "torchvision", "dnl_d2", "detectron2", "cv2", "onnx"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def smooth(rng, height, width):
    """Areas much larger than a cell: where classes meet, rounding decides."""
    rough = rng.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    return picture.filter(ImageFilter.GaussianBlur(2))


def varied(path):
    """Weights whose classes depend on the picture more than on the bias."""
    state = torch.load(path)
    state["model"]["sem_seg_head.predictor.bias"].zero_()
    state["model"]["sem_seg_head.predictor.weight"].normal_()
    torch.save(state, path)
    return path


@pytest.mark.parametrize("aligned", [False, True])
def test_resizing_is_pytorchs(root, rng, aligned):
    script = runpy.run_path(str(root / "projects" / "serving" / "segment.py"))
    array = rng.normal(size=(13, 18)).astype(np.float32)
    options = {"size": (41, 31), "mode": "bilinear", "align_corners": aligned}
    expected = torch.nn.functional.interpolate(torch.from_numpy(array)[None, None], **options)
    found = script["resized"](Image.fromarray(array), (31, 41), aligned=aligned)
    np.testing.assert_allclose(np.asarray(found), expected[0, 0].numpy(), rtol=1e-4, atol=1e-4)


def test_labels_are_those_of_the_predictor(root, tmp_path, rng, save):
    more = {"INPUT.RESIZE.BASE_SIZE": "(96, 60)", "INPUT.FORMAT": "BGR"}
    overrides = as_yaml(YAML_OPTIONS | more)
    weights = varied(save_weights(load_config(STEM + ".yaml", overrides), tmp_path / "w.pth"))
    predict = dnl_d2.Predictor(STEM + ".yaml", weights=weights, device="cpu", overrides=overrides)
    dnl_d2.export_model(predict, tmp_path / "x.onnx", format="onnx", check=False)
    photo = save("photo.png", smooth(rng, 131, 173))
    script = root / "projects" / "serving" / "segment.py"
    words = [script, tmp_path / "x.onnx", photo, tmp_path / "labels.png"]
    done = subprocess.run(
        [sys.executable, "-c", _START, *map(str, words)],
        cwd=tmp_path,
        env=with_root(""),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    expected, found = predict(photo), Image.open(tmp_path / "labels.png")
    assert len(np.unique(expected.labels)) > 1
    same = np.asarray(found) == expected.labels
    assert same.shape == (131, 173) and same.mean() > 0.99
    assert found.getpalette()[:24] == expected.label_picture().getpalette()[:24]
    assert next(iter(expected.summary()["shares"])) in done.stdout.splitlines()[0]


def test_a_detector_is_refused(root):
    script = runpy.run_path(str(root / "projects" / "serving" / "segment.py"))
    told = SimpleNamespace(custom_metadata_map={"task": '"detection"'})
    session = SimpleNamespace(get_modelmeta=lambda: told)
    with pytest.raises(ValueError, match="for detection, not for segmentation"):
        script["segment"](session, Image.new("RGB", (4, 4)))


def test_it_is_short(root):
    """What a reader has to follow: lines of code, without docstrings and comments."""
    text = (root / "projects" / "serving" / "segment.py").read_text()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)):
            node.body = node.body[1:] if ast.get_docstring(node) else node.body
    lines = {n.lineno for n in ast.walk(tree) if hasattr(n, "lineno")}
    assert len(lines) <= 40
