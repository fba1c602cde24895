"""The formats by name: how a graph is written, and how the file is run to check it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from dnl_d2.export.formats import onnx, torch_export, torchscript
from dnl_d2.export.graph import Graph


class Format(NamedTuple):
    """One format.

    Args:
        build: from a graph, its metadata as JSON, and an opset or None, to the content of a file.
        load: from the content of a file to what it computes.
        runtime: what runs the file, for messages.
    """

    build: Callable[[Graph, str, int | None], bytes]
    load: Callable[[bytes], Callable[[Tensor], tuple[Tensor, ...]]]
    runtime: str


FORMATS = {
    "torch-export": Format(torch_export.build, torch_export.load, "torch.export"),
    "onnx": Format(onnx.build, onnx.load, "onnxruntime"),
    "torchscript": Format(torchscript.build, torchscript.load, "TorchScript"),
}
