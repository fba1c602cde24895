"""From a model with its weights to a checked file that runs without this library."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dnl_d2.errors import UsageError
from dnl_d2.export import checking
from dnl_d2.export.detector import detector_graph
from dnl_d2.export.formats import FORMATS
from dnl_d2.export.formats.onnx import check_opset, require_packages
from dnl_d2.export.metadata import describe, require_single_scale
from dnl_d2.export.rcnn import rcnn_graph
from dnl_d2.export.segmentor import segmentor_graph
from dnl_d2.files import check_folder, write_bytes
from dnl_d2.layers.common import check_known
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.modeling.optimize import optimize_for_inference
from dnl_d2.prediction import Predictor

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: of the file.
        format: one of :data:`~dnl_d2.export.FORMATS`.
        metadata: see :func:`dnl_d2.export.metadata.describe`.
        comparison: with the model; None if it was not asked for.
    """

    path: str
    format: str
    metadata: dict[str, Any]
    comparison: checking.Comparison | None


def export_model(
    predictor: Predictor,
    path: str | os.PathLike,
    *,
    format: str,
    size: Sequence[int] | None = None,
    opset: int | None = None,
    optimize: bool = True,
    check: bool = True,
    overwrite: bool = False,
) -> Exported:
    """Writes a predictor's model as a file for other programs, checked against the model.

    The input is uint8, pictures as they are decoded, resized by the rule in the metadata: of
    segmentors ``images`` ``(N, C, H, W)`` to ``logits`` ``(N, K, H, W)``; of detectors see
    :func:`~dnl_d2.export.detector.detector_graph`.

    Args:
        predictor: config and weights.
        path: of the file, whose folder exists. It is written whole or not at all.
        format: ``torch-export``, ``onnx`` or ``torchscript``.
        size: (height, width) of every input; default any.
        opset: of ONNX; default the least that will do.
        optimize: export a copy of :func:`dnl_d2.optimize_for_inference`.
        check: run the file beside the model, at several sizes and numbers of pictures.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the format cannot hold the model, which the message says with the formats that
            can; the file is not the model; it is there; or it cannot be written.
    """
    path = checked_target(path, format, overwrite=overwrite)
    chosen = FORMATS[format]
    segments = isinstance(predictor.model, ContextSegmentor)
    task = "segmentation" if segments else "detection"
    _check_opset(format, task, opset)
    require_single_scale(predictor)
    inputs: dict[str, Any] = {"size": size, "dtype": torch.uint8}
    original = (segmentor_graph if segments else detector_graph)(predictor.model, **inputs)
    model = optimize_for_inference(predictor.model) if optimize else predictor.model
    if segments:
        graph = segmentor_graph(model, **inputs)
    else:
        graph = (rcnn_graph if format == "torch-export" else detector_graph)(model, **inputs)
    metadata = describe(predictor, graph)
    with _refusing(format):
        content = chosen.build(graph, json.dumps(metadata), opset)
    comparison = None
    if check:
        with _refusing(format):
            run = chosen.load(content)
        comparison = checking.compare(original, run, checking.inputs(original))
    write_bytes(path, content)
    return Exported(path, format, metadata, comparison)


def checked_target(path: str | os.PathLike, format: str, *, overwrite: bool = False) -> str:
    """The file to write, if it may be written and the format's packages are there.

    To be asked before a model is loaded; arguments and errors as of :func:`export_model`.
    """
    path = os.path.expanduser(os.fspath(path))
    check_known("format", format, FORMATS)
    if format == "onnx":
        require_packages()
    if not path:
        raise UsageError("the name of the file to write is empty")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder: name a file in it")
    if os.path.exists(path) and not overwrite:
        raise UsageError(f"{path} exists: choose another name, or overwrite it (--overwrite)")
    check_folder(path)
    return path


def _check_opset(format: str, task: str, opset: int | None) -> None:
    if format == "onnx":
        check_opset(opset, task)
    elif opset is not None:
        raise UsageError(f"an opset is for onnx, not for {format}")


@contextlib.contextmanager
def _refusing(format: str) -> Iterator[None]:
    """Turns whatever an exporter or a runtime raises into a :class:`UsageError` of one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        _logger.debug("while exporting", exc_info=True)
        cause = _cause(error)
        reason = " ".join(str(cause).split())[:200]
        others = " or ".join(other for other in FORMATS if other != format)
        raise UsageError(
            f"{format} cannot hold this model ({type(cause).__name__}: {reason}): try {others}"
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The error at the root of others, which tells the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
