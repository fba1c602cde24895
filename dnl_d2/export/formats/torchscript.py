"""Traced graphs of TorchScript: PyTorch runs them from Python and C++."""

import io
from collections.abc import Callable

import torch
from torch import Tensor

from dnl_d2.export.formats.quiet import quiet
from dnl_d2.export.formats.torch_export import METADATA_FILE
from dnl_d2.export.graph import Graph, as_tuple


def build(graph: Graph, metadata: str, opset: int | None) -> bytes:
    """The content of a ``.ts`` file; the metadata are its extra file ``metadata.json``."""
    file = io.BytesIO()
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(graph.module, (graph.example,), check_trace=False)
        torch.jit.save(traced, file, _extra_files={METADATA_FILE: metadata})
    return file.getvalue()


def load(content: bytes) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What the file computes."""
    with quiet():
        module = torch.jit.load(io.BytesIO(content))

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return as_tuple(module(images))

    return run
