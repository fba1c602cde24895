"""Silence while a graph is recorded."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch.fx", "torch.onnx", "torch.export")


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
