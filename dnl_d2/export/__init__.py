"""Models as files that run without this library: torch.export, ONNX, TorchScript."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.export.exporting import Exported, checked_target, export_model
from dnl_d2.export.formats import FORMATS
from dnl_d2.export.segmentor import LogitsOfImages, export_segmentor

__all__ = [
    "FORMATS",
    "Exported",
    "LogitsOfImages",
    "checked_target",
    "export_model",
    "export_segmentor",
]
