"""What is said of a file of tensors that cannot be read, and where memory is refused."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dnl_d2.checkpoint.unpickled_values import RefusedPickle
from dnl_d2.errors import UsageError, shortened

_SHARED = 8  # how often tensors may hold the bytes of the file, as names of one and the same do
_MOST_ENTRIES = 10_000_000  # beside tensors
_SLACK = 1 << 24  # bytes; a small file may repeat a value


@contextlib.contextmanager
def explaining(
    path: str,
    *,
    trust_pickle: bool = False,
    remedy: str = "if you trust its origin: tools/convert_weights.py --trust-pickle",
) -> Iterator[None]:
    """Turns whatever reading a file raises into a :class:`UsageError` that names it.

    Args:
        path: the file.
        trust_pickle: whether what it names is imported and called.
        remedy: for a file that would run code.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {shortened(error)}") from error
    except RefusedPickle as error:
        raise UsageError(
            f"{path}: refused, because reading it would run code ({shortened(error, 100)}); "
            f"{remedy}"
        ) from error
    except MemoryError as error:
        raise UsageError(f"{path}: not enough memory to read it") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, pickle, torch and safetensors raise anything
        if trust_pickle and isinstance(error, ImportError | AttributeError):
            raise UsageError(
                f"{path}: names what cannot be imported here ({shortened(error)}): install it, or "
                "read the file without --trust-pickle"
            ) from error
        raise UsageError(
            f"{path}: truncated or damaged ({type(error).__name__}: {shortened(error, 120)}); "
            "download or copy it again"
        ) from error


def check_sizes(tensors: Iterable[Tensor], size: int) -> None:
    """Tensors may repeat what a file of ``size`` bytes holds once, in their strides or by sharing.

    Raises:
        UsageError: they do so very often.
    """
    total = sum(value.numel() * value.element_size() for value in tensors)
    if total > _SHARED * size + _SLACK:
        raise UsageError(f"its tensors would be {total} bytes, and the file has {size}")


def check_entries(content: Any) -> None:
    """What a file holds beside tensors may hold parts of itself, but not endlessly often.

    Raises:
        UsageError: it does.
    """
    if _entries(content, {}) > _MOST_ENTRIES:
        raise UsageError("holds parts of itself many times over: no weights file")


def _entries(value: Any, known: dict[int, float]) -> float:
    """How many there are if each is written out, texts by 16; endless if one holds itself."""
    if isinstance(value, str | bytes):
        return 1 + len(value) / 16
    if isinstance(value, Mapping):
        inside = [part for pair in value.items() for part in pair]
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        inside = value.ravel().tolist()
    elif isinstance(value, list | tuple | set | frozenset):
        inside = list(value)
    elif hasattr(value, "__dict__") and not isinstance(value, Tensor | type):
        inside = list(vars(value).values())
    else:
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        known[id(value)] = 1 + sum(_entries(part, known) for part in inside)
    return known[id(value)]
