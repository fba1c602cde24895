"""Reporting beside a run: it neither ends it nor changes its course."""

import contextlib
import logging
import random
from collections.abc import Iterator

import numpy as np
import torch

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_warning(what: str) -> Iterator[None]:
    """Turns whatever fails into a warning: a training is worth more than a report of it.

    Args:
        what: does not come about then, in words.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        _log.warning(f"{what}: {type(error).__name__}: {reason}")
        _log.debug("in full:", exc_info=True)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Afterwards Python, NumPy and PyTorch draw the numbers that they would have drawn anyway."""
    python, array = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
