"""Public checkpoints: reading them safely, translating their keys, loading them."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.checkpoint.checkpointer import Checkpointer
from dnl_d2.checkpoint.convert import convert, convert_back, detect_source, get_source
from dnl_d2.checkpoint.reading import WeightsFile, read_weights
from dnl_d2.checkpoint.sources import SOURCES

__all__ = [
    "SOURCES",
    "Checkpointer",
    "WeightsFile",
    "convert",
    "convert_back",
    "detect_source",
    "get_source",
    "read_weights",
]
