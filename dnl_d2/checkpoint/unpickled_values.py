"""What pickles of weights may build: arrays, their types, and plain containers."""

import collections
import importlib
import math
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from dnl_d2.errors import UsageError


class RefusedPickle(Exception):
    """A pickle names something that only running code could give; the message is its name."""


# NumPy 2 moved its private modules; either NumPy reads the other's files.
_PRIVATE = ("numpy.core", "numpy._core")
# The configs of torchcv's checkpoints: a subclass of OrderedDict that only adds methods.
_TORCHCV_CONFIG = ("pyhocon.config_tree", "ConfigTree")
_BUILTINS = (bool, complex, dict, float, frozenset, int, list, set, tuple)
_ARRAY_TYPE = re.compile(r"[<>|=]?[?a-zA-Z]\d{0,9}")
_TORCH_DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
# What hashes the entries of its arguments.
HASHING = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter, set,
           frozenset)  # fmt: skip


def known_value(module: str, name: str) -> Any:
    """What a pickle may name; None for anything else. Nothing is imported for it."""
    if module == "torch" and name in _TORCH_DTYPES:
        return _TORCH_DTYPES[name]
    package, _, private = module.rpartition(".")
    if package in _PRIVATE and (private, name) in _REBUILD_ARRAYS:
        return _REBUILD_ARRAYS[private, name]
    return _KNOWN.get((module, name))


def set_array(array: np.ndarray, state: tuple) -> None:
    """Shape and values of an array, of which there must be as many as the shape says."""
    shape, kind, content = (state[-4], state[-3], state[-1])
    if not isinstance(kind, np.dtype) or not isinstance(content, bytes | str | list):
        raise pickle.UnpicklingError("no array's state")
    if math.prod(shape) > len(content):
        raise EOFError("an array of more values than there are")
    array.__setstate__(state)


def set_array_type(kind: np.dtype, state: tuple) -> None:
    """The byte order of an array's type, and nothing else.

    NumPy believes what else a state may say, and arrays then read outside of their memory.
    """
    if len(state) < 8 or any(part is not None for part in state[2:5]):
        raise UsageError("holds arrays of records: not a network's plain weights")
    own = kind.itemsize, kind.alignment, kind.flags
    kind.__setstate__((3, state[1], None, None, None, *own))  # type: ignore[attr-defined]


class _Array:
    """NumPy's class in a pickle, which names it and never calls it."""


def _array_type(name: str, align: Any = False, copy: Any = False) -> np.dtype:
    """A type of its own, whose byte order may follow."""
    if not isinstance(name, str) or not _ARRAY_TYPE.fullmatch(name):
        raise UsageError("holds arrays of records: not a network's plain weights")
    return np.dtype(name, copy=True)


def _text(value: Any = "") -> str:
    """Of anything else than a text it could be endless."""
    if not isinstance(value, str):
        raise RefusedPickle("str")
    return value


def _numpy_private(module: str, name: str) -> Any:
    home = _PRIVATE[np.lib.NumpyVersion(np.__version__) >= "2.0.0"]
    return getattr(importlib.import_module(f"{home}.{module}"), name)


def _empty(*_: Any) -> np.ndarray:
    """What ``_reconstruct`` is for: an array whose shape and values follow."""
    return np.ndarray((0,), "b")


def _scalar(kind: np.dtype, content: bytes | str) -> Any:
    content = _encode(content) if isinstance(content, str) else content  # of Python 2
    return np.frombuffer(content, kind, count=1)[0] if kind.itemsize else kind.type()


def _bytes(content: Iterable[int] | bytes = b"") -> bytes:
    if not isinstance(content, bytes | list | tuple):  # of a number so many zeros
        raise RefusedPickle("bytes")
    return bytes(content)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedPickle(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


_REBUILD_ARRAYS: dict[tuple[str, str], Callable] = {
    ("multiarray", "_reconstruct"): _empty,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _numpy_private("numeric", "_frombuffer"),
}
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _array_type,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.serialization", "_get_layout"): _text,
    ("_codecs", "encode"): _encode,  # how protocol 2 writes bytes
    _TORCHCV_CONFIG: collections.OrderedDict,
    **{(m, kind.__name__): kind for kind in _BUILTINS for m in ("builtins", "__builtin__")},
    **{(m, "bytes"): _bytes for m in ("builtins", "__builtin__")},
    **{(m, "str"): _text for m in ("builtins", "__builtin__")},
}
