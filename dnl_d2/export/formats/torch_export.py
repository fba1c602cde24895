"""Programs of torch.export: PyTorch runs and compiles them without the code of the model."""

import io
from collections.abc import Callable

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from dnl_d2.export.formats.quiet import quiet
from dnl_d2.export.graph import Graph, as_tuple

METADATA_FILE = "metadata.json"


def exported_program(graph: Graph) -> ExportedProgram:
    """The graph by :func:`torch.export.export`, in non-strict mode."""
    free = (dict.fromkeys(graph.axes, Dim.DYNAMIC),)
    with quiet(), torch.no_grad():
        return torch.export.export(
            graph.module, (graph.example,), dynamic_shapes=free, strict=False
        )


def build(graph: Graph, metadata: str, opset: int | None) -> bytes:
    """The content of a ``.pt2`` file; the metadata are its extra file ``metadata.json``."""
    file = io.BytesIO()
    program = exported_program(graph)
    with quiet():
        torch.export.save(program, file, extra_files={METADATA_FILE: metadata})
    return file.getvalue()


def load(content: bytes) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What the file computes."""
    program = torch.export.load(io.BytesIO(content)).module()
    return lambda images: as_tuple(program(images))
