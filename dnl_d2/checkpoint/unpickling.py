"""Pickles, plain ones and those in PyTorch's files, read without running what they name.

Arrays, tensors and plain containers are built. What names anything else, such as the logs and
configs that training frameworks save beside the weights, gets an object that does nothing.
"""

import collections
import importlib
import pickle
from collections.abc import Mapping
from inspect import isroutine
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch

# What rebuilds arrays and tensors. NumPy 2 moved its private modules; either NumPy reads the
# other's files.
_PRIVATE = ("numpy.core", "numpy._core")
_REBUILD = {
    ("multiarray", "_reconstruct"),
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),
}
_REBUILD_TENSORS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)
# The configs of torchcv's checkpoints: a subclass of OrderedDict that only adds methods.
_TORCHCV_CONFIG = ("pyhocon.config_tree", "ConfigTree")
_BUILTINS = (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
_PLAIN = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    _TORCHCV_CONFIG: collections.OrderedDict,
    **{("torch._utils", name): getattr(torch._utils, name) for name in _REBUILD_TENSORS},
    **{(m, kind.__name__): kind for kind in _BUILTINS for m in ("builtins", "__builtin__")},
}
# A file of weights that names these was made to do harm: it is not read at all.
_HARMFUL = ("os", "posix", "nt", "sys", "subprocess")
_SPLIT = "UnpackBigParamInfor@@"  # PaddlePaddle's note on arrays that it has cut up


class RefusedPickle(Exception):
    """A pickle names something that only running code could give; the message is its name."""


class Inert:
    """Stands for an object of any class or function, and takes all that a pickle does to it."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    add = extend = append

    def __call__(self, *args: Any) -> "Inert":
        return self


def inert_name(value: Any) -> str:
    """What an :class:`Inert` object, or a subclass of it, stands for; empty for anything else."""
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__name__}" if issubclass(kind, Inert) else ""


# The one in Python, of which two steps can be watched.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    dispatch: ClassVar[dict] = dict(_PythonUnpickler.dispatch)

    def load_build(self) -> None:
        """Sets the state of an object; that of a class or function would outlive the reading."""
        target = self.stack[-2]
        if isinstance(target, type) or isroutine(target):
            raise RefusedPickle(f"the state of {target.__name__}")
        super().load_build()

    def load_reduce(self) -> None:
        """Calls what was found; nothing is rebuilt from what is not there."""
        function, arguments = self.stack[-2:]
        if isroutine(function):
            for argument in arguments:
                if inert_name(argument):
                    raise RefusedPickle(inert_name(argument))
        super().load_reduce()

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _encode
        package, _, private = module.rpartition(".")
        if package in _PRIVATE and (private, name) in _REBUILD:
            return _numpy_private(private, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.partition(".")[0] in _HARMFUL:
            raise RefusedPickle(f"{module}.{name}")
        return type(name, (Inert,), {"__module__": module})


# For ``torch.load(pickle_module=...)``, which asks a module for these.
INERT_PICKLE = SimpleNamespace(
    __name__=__name__,
    Unpickler=_Unpickler,
    load=lambda file, **options: _Unpickler(file, **options).load(),
)


def safe_globals() -> list:
    """What ``torch.load`` needs to be told to accept beside tensors: arrays and plain configs."""
    rebuild, scalar = (_numpy_private("multiarray", n) for n in ("_reconstruct", "scalar"))
    kinds = [type(np.dtype(kind)) for kind in "?bhilqBHILQefdU"]
    pairs = [(f, f"{p}.multiarray.{f.__name__}") for f in (rebuild, scalar) for p in _PRIVATE]
    config = (collections.OrderedDict, ".".join(_TORCHCV_CONFIG))
    return [*pairs, np.ndarray, np.dtype, *kinds, (_encode, "_codecs.encode"), config]


def load_arrays(path: str, trust: bool) -> Any:
    """Unpickles ``path``, strings of Python 2 as latin-1, and rejoins arrays that were cut up.

    Raises:
        RefusedPickle: it was made to do harm, and ``trust`` is off.
    """
    with open(path, "rb") as file:
        content = (pickle.Unpickler if trust else _Unpickler)(file, encoding="latin1").load()
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
