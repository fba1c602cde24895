"""Plain pickles (Detectron's ``.pkl``, PaddlePaddle's ``.pdparams``) that may only hold arrays."""

import importlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

# All that a pickle of NumPy arrays names: nothing here imports, opens or runs anything.
# NumPy 2 moved its private modules; either NumPy reads the other's files.
_PRIVATE = ("numpy.core", "numpy._core")
_ALLOWED = {
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
}
_PLAIN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}
_SPLIT = "UnpackBigParamInfor@@"  # PaddlePaddle's note on arrays that it has cut up


class RefusedPickle(Exception):
    """A pickle names something that only running code could give; the message is its name."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _encode
        package, _, private = module.rpartition(".")
        if package in _PRIVATE and (private, name) in _ALLOWED:
            return _numpy_private(private, name)
        raise RefusedPickle(f"{module}.{name}")


def safe_globals() -> list:
    """What ``torch.load`` needs to be told to accept beside tensors: arrays and plain configs."""
    rebuild, scalar = (_numpy_private("multiarray", n) for n in ("_reconstruct", "scalar"))
    kinds = [type(np.dtype(kind)) for kind in "?bhilqBHILQefdU"]
    pairs = [(f, f"{p}.multiarray.{f.__name__}") for f in (rebuild, scalar) for p in _PRIVATE]
    # The configs of torchcv's checkpoints: a subclass of OrderedDict that only adds methods.
    config = (OrderedDict, "pyhocon.config_tree.ConfigTree")
    return [*pairs, np.ndarray, np.dtype, *kinds, (_encode, "_codecs.encode"), config]


def load_arrays(path: str, trust: bool) -> Any:
    """Unpickles ``path``, strings of Python 2 as latin-1, and rejoins arrays that were cut up.

    Raises:
        RefusedPickle: it names anything but arrays, and ``trust`` is off.
    """
    with open(path, "rb") as file:
        content = (pickle.Unpickler if trust else _ArrayUnpickler)(file, encoding="latin1").load()
    return _rejoin(content) if isinstance(content, Mapping) else content


def _numpy_private(module: str, name: str) -> Any:
    home = _PRIVATE[np.lib.NumpyVersion(np.__version__) >= "2.0.0"]
    return getattr(importlib.import_module(f"{home}.{module}"), name)


def _rejoin(content: Mapping) -> dict:
    joined = {}
    for key, value in content.items():
        # paddle.save writes a tensor that is not in a state dict as (name, array).
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            value = value[1]
        joined[key] = value
    for key, note in (content.get(_SPLIT) or {}).items():
        parts = [np.ravel(joined.pop(name)) for name in note["slices"]]
        joined[key] = np.concatenate(parts).reshape(note["OriginShape"])
    return joined


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedPickle(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")
