"""ONNX files, by PyTorch's two exporters.

The newer one, of torch.export, takes segmentors. Detectors go through the one of TorchScript, which
does not need to know how many boxes there are.
"""

import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dnl_d2.errors import UsageError
from dnl_d2.export.formats.quiet import quiet, silent_stdout
from dnl_d2.export.formats.torch_export import exported_program
from dnl_d2.export.graph import Graph

# By task: RoIAlign is what the models need since opset 16; the newer exporter begins with 18.
LEAST_OPSET = {"segmentation": 18, "detection": 16}
_LARGEST = 2**31 - 1  # bytes, of a message of protobuf


def require_packages() -> None:
    """Raises a :class:`UsageError` where a package that ONNX needs is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"ONNX needs the package {error.name}: pip install onnx onnxruntime onnxscript "
            "(dnl_d2[export])"
        ) from error


def check_opset(opset: int | None, task: str) -> int:
    """The opset to write, or a :class:`UsageError` if it is too old for a task or unknown."""
    import onnx

    least, newest = LEAST_OPSET[task], onnx.defs.onnx_opset_version()
    if opset is None:
        return least
    if opset < least:
        raise UsageError(f"opset {opset} is too old for {task}: the least is {least}")
    if opset > newest:
        raise UsageError(f"onnx {onnx.__version__} has no opset {opset}: its newest is {newest}")
    return opset


def build(graph: Graph, metadata: str, opset: int | None) -> bytes:
    """The content of an ``.onnx`` file; metadata_props holds the metadata, each value as JSON."""
    require_packages()
    import onnx

    wanted = check_opset(opset, graph.task)
    with quiet(), torch.no_grad():
        convert = _from_program if graph.task == "segmentation" else _from_trace
        model = convert(graph, wanted)
    written = next(entry.version for entry in model.opset_import if not entry.domain)
    if written != wanted:
        raise UsageError(f"PyTorch {torch.__version__} writes opset {written}, not {wanted}")
    values = {key: json.dumps(value) for key, value in json.loads(metadata).items()}
    onnx.helper.set_model_props(model, values)
    if model.ByteSize() > _LARGEST:
        raise UsageError("an ONNX file holds 2 GB at most: use torch-export for this model")
    return model.SerializeToString()


def _from_program(graph: Graph, opset: int) -> Any:
    program = torch.onnx.export(
        exported_program(graph),
        input_names=[graph.input_name],
        output_names=list(graph.outputs),
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _from_trace(graph: Graph, opset: int) -> Any:
    import onnx

    with silent_stdout(), tempfile.TemporaryDirectory(prefix="dnl_d2-onnx-") as folder:
        path = os.path.join(folder, "model.onnx")
        torch.onnx.export(
            graph.module,
            (graph.example,),
            path,
            input_names=[graph.input_name],
            output_names=list(graph.outputs),
            dynamic_axes={graph.input_name: graph.axes, **graph.outputs},
            opset_version=opset,
            dynamo=False,
        )
        return onnx.load(path)


def load(content: bytes) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """What onnxruntime computes of the file, on a CPU with as many threads as PyTorch uses."""
    require_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, {name: images.cpu().numpy()})
        return tuple(torch.from_numpy(output) for output in outputs)

    return run
