"""tools/export_model.py: what is written and told, and mistakes in one line."""

import json
import os
import sys

import pytest
import torch

from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from dnl_d2.export import checking
from dnl_d2.export.formats import onnx
from tests.engine.runs import SMALL_DETECTOR, STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import DETECTOR, save_weights
from tests.tools.programs import load

pytestmark = pytest.mark.usefixtures("environment")
PADDED = {"INPUT.RESIZE.BASE_SIZE": "(96, 64)", "MODEL.DEVICE": "cpu"}


@pytest.fixture
def export(root, tmp_path, monkeypatch):
    """Returns ``export(*options, **overrides)``: runs the tool on a small segmentor."""
    weights = save_weights(load_config(STEM + ".yaml", as_yaml(YAML_OPTIONS)), tmp_path / "w.pth")
    monkeypatch.syspath_prepend(str(root / "tools"))
    tool = load(root, "export_model")

    def run(*options, format="torchscript", output="x.ts", weights=weights, **overrides):
        words = ["--config-file", STEM + ".yaml", "--weights", weights, "--format", format]
        words += ["--output", output and str(tmp_path / output), *options]
        words += ["--opts", *as_yaml(YAML_OPTIONS | PADDED, **overrides)]
        monkeypatch.setattr(sys, "argv", ["export_model.py", *map(str, words)])
        tool.main()

    return run


def test_what_is_written_and_told(export, tmp_path, capsys):
    export()
    out = capsys.readouterr().out
    assert "input images: uint8 (number, 3, height, width), 0 to 255, not normalised" in out
    assert "TorchScript, inputs 1x3x253x187, 3x3x131x217, 2x3x319x241: largest difference" in out
    assert " of 286350 labels differ" in out
    files = {"metadata.json": ""}
    torch.jit.load(tmp_path / "x.ts", _extra_files=files)
    metadata = json.loads(files["metadata.json"])
    assert metadata["classes"][1] == "texture_a" and len(metadata["colors"]) == 8
    assert metadata["resize"] == {"fit": [96, 64]} and metadata["channel_order"] == "RGB"
    assert metadata["task"] == "segmentation" and metadata["align_corners"] is False
    with pytest.raises(UsageError, match=r"x\.ts exists: choose another name, or overwrite it"):
        export()
    export("--overwrite", "--no-check", "--no-optimize", "--size", "61", "77")
    out = capsys.readouterr().out
    assert "(number, 3, 61, 77)" in out and "not compared with the model" in out


def test_the_precision_of_predictions_is_not_that_of_a_file(export, tmp_path):
    export("--no-check", TEST__PRECISION="bfloat16")
    dtypes = {p.dtype for p in torch.jit.load(tmp_path / "x.ts").parameters()}
    assert dtypes == {torch.float32}


def test_windows_need_a_size(export, capsys):
    windows = {"TEST__SLIDE__WINDOW": "(48,48)", "TEST__SLIDE__STRIDE": "(32,32)"}
    with pytest.raises(UsageError, match=r"windows of \(48, 48\) slide over pictures of one size"):
        export(**windows)
    export("--size", "64", "80", **windows)
    assert "inputs 1x3x64x80: largest" in capsys.readouterr().out


def test_a_detector(root, tmp_path, monkeypatch, capsys):
    overrides = as_yaml(SMALL_DETECTOR | {"MODEL.DEVICE": "cpu", "INPUT.MAX_SIZE_TEST": 200})
    tool = load(root, "export_model")
    config = str(root / "configs" / f"{DETECTOR}.yaml")
    weights = save_weights(load_config(config, overrides), tmp_path / "w.pth")
    words = ["--config-file", config, "--weights", weights, "--output", str(tmp_path / "x.ts")]

    def run(format, *more_overrides):
        more = ["--format", format, "--opts", *overrides, *more_overrides]
        monkeypatch.setattr(sys, "argv", ["export_model.py", *words, *more])
        tool.main()

    with pytest.raises(UsageError, match=r"at one scale: switch TEST\.AUG\.ENABLED off"):
        run("torchscript", "TEST.AUG.ENABLED", "True")
    run("torchscript")
    out = capsys.readouterr().out
    assert "outputs boxes, scores, classes, masks" in out and " of 300 objects differ" in out
    files = {"metadata.json": ""}
    torch.jit.load(tmp_path / "x.ts", _extra_files=files)
    metadata = json.loads(files["metadata.json"])
    assert metadata["task"] == "detection" and metadata["resize"] == {"short": 128, "long": 200}
    assert len(metadata["classes"]) == 7


def test_nothing_is_written_if_the_file_is_not_the_model(export, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "_TOLERANCE", 0.0)
    with pytest.raises(UsageError, match="is not the model: logits differ by"):
        export()
    assert os.listdir(tmp_path) == ["w.pth"]


def test_an_operator_that_a_format_lacks(export, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("many words") from KeyError("no translation for aten.searchsorted")

    monkeypatch.setattr(onnx, "_from_program", fails)
    pytest.importorskip("onnxscript")
    with pytest.raises(UsageError) as error:
        export(format="onnx")
    assert str(error.value) == (
        "onnx cannot hold this model (KeyError: 'no translation for aten.searchsorted'): try "
        "torch-export or torchscript"
    )


def test_a_file_that_its_runtime_refuses(export, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx, "_from_program", invalid)
    with pytest.raises(UsageError, match=r"^onnx cannot hold this model \(\w+: .*INVALID_GRAPH"):
        export(format="onnx")
    assert os.listdir(tmp_path) == ["w.pth"]


def invalid(_, opset):
    """A model whose one node adds a number to a string."""
    import onnx as package

    make = package.helper
    number, string = (
        make.make_tensor_value_info(name, kind, [1])
        for name, kind in (("a", package.TensorProto.FLOAT), ("b", package.TensorProto.STRING))
    )
    node = make.make_node("Add", ["a", "b"], ["c"])
    result = make.make_tensor_value_info("c", package.TensorProto.FLOAT, [1])
    return make.make_model(
        make.make_graph([node], "sum", [number, string], [result]),
        opset_imports=[make.make_opsetid("", opset)],
        ir_version=8,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": ""}, "the name of the file to write is empty"),
        ({"output": "none/x.ts"}, "there is no folder"),
        ({"output": "."}, "is a folder: name a file in it"),
        ({"weights": "none.pth"}, r"none\.pth"),
        ({"weights": ""}, "needs trained weights"),
        ({"TEST__AUG__ENABLED": True}, "a graph predicts at one scale: switch TEST.AUG.ENABLED"),
    ],
)
def test_mistakes(export, options, message):
    with pytest.raises(UsageError, match=message):
        export(**options)


def test_mistakes_of_options(export, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="an opset is for onnx, not for torchscript"):
        export("--opset", "18")
    with pytest.raises(UsageError, match="height must be a positive integer, got 0"):
        export("--size", "0", "8")
    with pytest.raises(UsageError, match="opset 11 is too old for segmentation: the least is 18"):
        export("--opset", "11", format="onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="ONNX needs the package onnxruntime: pip install"):
        export(format="onnx")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="no permission to write in"):
        export()
    assert os.listdir(tmp_path) == ["w.pth"]
