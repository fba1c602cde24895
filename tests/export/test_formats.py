"""Whole models of every method in every format, beside the models themselves."""

import json
import subprocess
import sys

import pytest
import torch

from dnl_d2 import optimize_for_inference
from dnl_d2.errors import UsageError
from dnl_d2.export import checking
from dnl_d2.export.formats import FORMATS, onnx
from dnl_d2.export.segmentor import segmentor_graph
from dnl_d2.layers import CONTEXT_BLOCKS
from tests.export.test_segmentor import segmentor
from tests.processes import with_root

METADATA = json.dumps({"task": "segmentation", "classes": ["ground", "sky"]})
SHAPES = ((1, 61, 77), (3, 97, 33), (2, 45, 130))
# Keys and values of two widths, for which PyTorch has no kernel of its own.
TWO_WIDTHS = {"name": "nl", "inter_channels": 4, "mode": "gaussian"}
HEADS = [None, "ann", *(name for name in CONTEXT_BLOCKS if name != "afnb"), TWO_WIDTHS]


def exported(format, head="dnl", *, size=None, opset=None, **options):
    """The graph of a model, and the content of the file of its optimised copy."""
    model = segmentor(head, **options)
    graph = segmentor_graph(model, size=size, dtype=torch.uint8)
    fast = segmentor_graph(optimize_for_inference(model), size=size, dtype=torch.uint8)
    return graph, FORMATS[format].build(fast, METADATA, opset)


def compare(format, graph, content, shapes=SHAPES):
    images = checking.inputs(graph, shapes)
    return checking.compare(graph, FORMATS[format].load(content), images)


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_every_method(head, format):
    graph, content = exported(format, head)
    found = compare(format, graph, content)
    assert len(found.shapes) == 3 and found.compared == 61 * 77 + 3 * 97 * 33 + 2 * 45 * 130
    assert 0 <= found.largest["logits"] < 1e-4 * found.scale


@pytest.mark.parametrize("head", ["dnl", pytest.param("ann", marks=pytest.mark.slow)])
def test_onnx(head):
    pytest.importorskip("onnxscript")
    graph, content = exported("onnx", head)
    found = compare("onnx", graph, content)
    assert found.different <= 2 and found.largest["logits"] < 1e-4 * found.scale
    import onnx as package

    model = package.load_from_string(content)
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties == json.loads(METADATA)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    sides = images.type.tensor_type.shape.dim
    assert [side.dim_value for side in sides] == [0, 3, 0, 0]  # 0: any


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
def test_windows_slide_over_pictures_of_one_size(format):
    windows = {"slide_window": (48, 64), "slide_stride": (32, 40)}
    graph, content = exported(format, size=(70, 131), **windows)
    assert compare(format, graph, content).shapes == [(1, 3, 70, 131)]


def test_opsets():
    pytest.importorskip("onnx")
    with pytest.raises(UsageError, match=r"onnx .* has no opset 99: its newest is \d\d$"):
        onnx.check_opset(99, "segmentation")
    with pytest.raises(UsageError, match="opset 11 is too old for segmentation: the least is 18"):
        onnx.check_opset(11, "segmentation")
    with pytest.raises(UsageError, match="opset 15 is too old for detection: the least is 16"):
        onnx.check_opset(15, "detection")
    assert onnx.check_opset(None, "segmentation") == 18 and onnx.check_opset(19, "detection") == 19


_ELSEWHERE = """
import io, sys
for name in ("dnl_d2", "detectron2", "fvcore"):
    sys.modules[name] = None  # importing it fails
import torch
path, images, expected = sys.argv[1:]
metadata = {"metadata.json": ""}
if path.endswith(".pt2"):
    run = torch.export.load(path, extra_files=metadata).module()
else:
    run = torch.jit.load(path, _extra_files=metadata)
with torch.no_grad():
    torch.testing.assert_close(run(torch.load(images)), torch.load(expected), rtol=1e-4, atol=1e-4)
print(metadata["metadata.json"] if isinstance(metadata["metadata.json"], str)
      else metadata["metadata.json"].decode())
"""


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
def test_files_run_where_this_library_is_not_installed(format, tmp_path):
    graph, content = exported(format, TWO_WIDTHS)
    path = tmp_path / ("model.pt2" if format == "torch-export" else "model.ts")
    path.write_bytes(content)
    (images,) = checking.inputs(graph, SHAPES[1:2])
    (logits,) = graph(images)
    for name, tensor in (("images", images), ("logits", logits)):
        torch.save(tensor, tmp_path / name)
    files = [str(tmp_path / name) for name in (path.name, "images", "logits")]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *files],
        cwd=tmp_path,
        env=with_root(""),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(METADATA)


def test_another_model_is_told_from_the_model():
    graph, content = exported("torchscript", "gc")
    run = FORMATS["torchscript"].load(content)
    images = checking.inputs(graph, SHAPES)
    for wrong in (lambda x: (run(x)[0] * 1.01,), lambda x: (run(x)[0] * torch.nan,)):
        with pytest.raises(UsageError, match=r"is not the model: logits differ by"):
            checking.compare(graph, wrong, images)
    with pytest.raises(UsageError, match=r"not the model: logits of \(1, 5, 61, 76\) in place of"):
        checking.compare(graph, lambda x: (run(x)[0][..., :-1],), images)
    with pytest.raises(UsageError, match=r"does not take an input of \(3, 3, 97, 33\)"):
        checking.compare(
            graph, lambda x: run(x[:, :, : 61 + 1]) if len(x) == 1 else run(x[0, 0]), images
        )


def test_labels_that_differ_are_counted():
    graph, content = exported("torchscript", "gc")
    run = FORMATS["torchscript"].load(content)

    def tied(images):  # the first class is made the largest by less than the tolerance
        (logits,) = run(images)
        return (logits + 1e-4 * logits.abs().max() * torch.eye(5)[0][:, None, None],)

    found = checking.compare(graph, tied, checking.inputs(graph, SHAPES))
    assert 0 < found.different < 0.1 * found.compared
    assert f"{found.different} of {found.compared} labels differ" in str(found)
