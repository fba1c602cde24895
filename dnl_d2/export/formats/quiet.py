"""Silence while a graph is recorded."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch.fx", "torch.onnx", "torch.export", "onnxscript")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what exporters say of their own insides; what comes of it, the check tells."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Hides what compiled code prints: the exporter of TorchScript prints a graph that fails."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
