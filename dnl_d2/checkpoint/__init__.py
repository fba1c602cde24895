"""Public checkpoints: reading them safely, translating their keys, loading them."""

import dnl_d2.needs_detectron2  # noqa: F401
from dnl_d2.checkpoint.checkpointer import Checkpointer
from dnl_d2.checkpoint.convert import (
    convert,
    convert_back,
    detect_source,
    get_source,
    register_source,
)
from dnl_d2.checkpoint.keymap import NORM, PARAM, Rule, State
from dnl_d2.checkpoint.reading import WeightsFile, read_weights
from dnl_d2.checkpoint.source import IMAGENET_RGB, InputFormat, Source
from dnl_d2.checkpoint.sources import SOURCES

__all__ = [
    "IMAGENET_RGB",
    "NORM",
    "PARAM",
    "SOURCES",
    "Checkpointer",
    "InputFormat",
    "Rule",
    "Source",
    "State",
    "WeightsFile",
    "convert",
    "convert_back",
    "detect_source",
    "get_source",
    "read_weights",
    "register_source",
]
