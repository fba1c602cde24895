"""Pickles, plain ones and those in PyTorch's files, read without running what they name.

Arrays and plain containers are built. What names anything else, such as the logs and configs that
training frameworks save beside the weights, gets an object that does nothing. A small file can make
no more than a multiple of itself, and takes seconds at most.
"""

import collections
import importlib
import os
import pickle
from collections.abc import Iterable, Mapping
from inspect import isroutine
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch

from dnl_d2.errors import UsageError

# NumPy 2 moved its private modules; either NumPy reads the other's files.
_PRIVATE = ("numpy.core", "numpy._core")
# The configs of torchcv's checkpoints: a subclass of OrderedDict that only adds methods.
_TORCHCV_CONFIG = ("pyhocon.config_tree", "ConfigTree")
_BUILTINS = (bool, complex, dict, float, frozenset, int, list, set, str, tuple)
# A file of weights that names these was made to do harm: it is not read at all.
_HARMFUL = ("os", "posix", "nt", "sys", "subprocess")
_SPLIT = "UnpackBigParamInfor@@"  # PaddlePaddle's note on arrays that it has cut up

# Bounds, far above what networks need.
_MOST_READS = 3_500_000  # a tensor takes about 50, and a million take a second or two
_DEEPEST = 100  # tuples in tuples: hashing a key recurses without a limit
_COPIES = 4  # how often what calls are given may be the whole file
_CLASS = 1000  # what a class that is not there costs, in bytes


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


class Metered:
    """A file for an unpickler: what is read of it is there, and in a bounded number of steps."""

    def __init__(self, file: BinaryIO):
        self._file, self._reads = file, 0
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, length: int) -> bytes:
        """Exactly ``length`` bytes; of more than there are, no memory is taken."""
        self._count()
        if length > self.size or len(content := self._file.read(length)) < length:
            raise EOFError("the end of the file is missing")
        return content

    def readline(self) -> bytes:
        self._count()
        return self._file.readline()

    def _count(self) -> None:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise UsageError("holds far more entries than a network has: no weights file")


# The one in Python, whose steps can be watched.
_PythonUnpickler: Any = pickle._Unpickler


class SafeUnpickler(_PythonUnpickler):
    """Unpickles from a :class:`Metered` file.

    Raises:
        RefusedPickle: the pickle was made to do harm.
        UsageError: it makes more than a weights file needs.
    """

    dispatch: ClassVar[dict] = dict(_PythonUnpickler.dispatch)
    known: ClassVar[Mapping[tuple[str, str], Any]] = {}  # what it builds, by module and name

    def __init__(self, file: Metered, **options: Any):
        super().__init__(file, **options)
        self._left = _COPIES * file.size + 100 * _CLASS
        self._depths: dict[int, int] = {}
        self._tuples: list[tuple] = []  # kept, or another could get the id of one that is gone
        self._inert: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.known:
            return self.known[module, name]
        package, _, private = module.rpartition(".")
        if package in _PRIVATE and (private, name) in _REBUILD_ARRAYS:
            return _REBUILD_ARRAYS[private, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.partition(".")[0] in _HARMFUL:
            raise RefusedPickle(f"{module}.{name}")
        if (module, name) not in self._inert:
            self._spend(_CLASS)
            self._inert[module, name] = type(name, (Inert,), {"__module__": module})
        return self._inert[module, name]

    def load_build(self) -> None:
        """Sets the state of an object; that of a class or function would outlive the reading."""
        target, state = self.stack[-2:]
        if isinstance(target, type) or isroutine(target):
            raise RefusedPickle(f"the state of {target.__name__}")
        self._pay(state)
        super().load_build()

    def load_reduce(self) -> None:
        """Calls what was found; nothing is rebuilt from what is not there."""
        function, arguments = self.stack[-2:]
        if isroutine(function):
            for argument in arguments:
                if inert_name(argument):
                    raise RefusedPickle(inert_name(argument))
        self._pay(arguments)
        super().load_reduce()
        self._measure()

    def load_newobj(self) -> None:
        self._pay(self.stack[-1])
        super().load_newobj()
        self._measure()

    def load_newobj_ex(self) -> None:
        self._pay(self.stack[-2])
        self._pay(self.stack[-1])
        super().load_newobj_ex()
        self._measure()

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        self._pay(arguments)
        super()._instantiate(kind, arguments)
        self._measure()

    def load_tuple(self) -> None:
        super().load_tuple()
        self._measure()

    def load_tuple1(self) -> None:
        super().load_tuple1()
        self._measure()

    def load_tuple2(self) -> None:
        super().load_tuple2()
        self._measure()

    def load_tuple3(self) -> None:
        super().load_tuple3()
        self._measure()

    def load_frame(self) -> None:
        """A frame is a hint for reading ahead, which would go past the meter."""
        self.read(8)

    # Memory for a bytearray is taken before it is known whether there is as much in the file.
    dispatch[pickle.BYTEARRAY8[0]] = _PythonUnpickler.load_binbytes8
    dispatch |= {
        pickle.BUILD[0]: load_build,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: load_tuple1,
        pickle.TUPLE2[0]: load_tuple2,
        pickle.TUPLE3[0]: load_tuple3,
        pickle.FRAME[0]: load_frame,
    }

    def _pay(self, arguments: Iterable[Any]) -> None:
        """For what a call may copy: a part of the file can be given to many."""
        if isinstance(arguments, _SIZED):
            self._spend(len(arguments))
            if isinstance(arguments, tuple | list):
                self._spend(sum(len(part) for part in arguments if isinstance(part, _SIZED)))

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise UsageError("makes far more of itself than it holds: no weights file")

    def _measure(self) -> None:
        """How deep the tuple is that was built last."""
        made = self.stack[-1]
        if not isinstance(made, tuple):
            return
        inner = [self._depths.get(id(part), 0) for part in made if isinstance(part, tuple)]
        depth = 1 + max(inner, default=0)
        if depth > _DEEPEST:
            raise UsageError("holds tuples in tuples without end: no weights file")
        self._depths[id(made)] = depth
        self._tuples.append(made)


_SIZED = (str, bytes, list, tuple, dict, set, frozenset)


def load_arrays(path: str, trust: bool) -> Any:
    """Unpickles ``path``, strings of Python 2 as latin-1, and rejoins arrays that were cut up.

    Raises:
        RefusedPickle: it was made to do harm, and ``trust`` is off.
    """
    with open(path, "rb") as file:
        if trust:
            content = pickle.Unpickler(file, encoding="latin1").load()
        else:
            content = SafeUnpickler(Metered(file), encoding="latin1").load()
    return _rejoin(content) if isinstance(content, Mapping) else content


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


class _Array:
    """NumPy's class in a pickle, which names it and never calls it."""


def _numpy_private(module: str, name: str) -> Any:
    home = _PRIVATE[np.lib.NumpyVersion(np.__version__) >= "2.0.0"]
    return getattr(importlib.import_module(f"{home}.{module}"), name)


def _empty(*_: Any) -> np.ndarray:
    """What ``_reconstruct`` is for: an array whose shape and values follow."""
    return np.ndarray((0,), "b")


def _scalar(kind: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, kind, count=1)[0]


def _bytes(content: Iterable[int] | bytes = b"") -> bytes:
    if isinstance(content, int):  # so many zeros
        raise RefusedPickle("bytes")
    return bytes(content)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedPickle(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


_REBUILD_ARRAYS = {
    ("multiarray", "_reconstruct"): _empty,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _numpy_private("numeric", "_frombuffer"),
}
SafeUnpickler.known = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "Counter"): collections.Counter,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("_codecs", "encode"): _encode,  # how protocol 2 writes bytes
    _TORCHCV_CONFIG: collections.OrderedDict,
    **{(m, kind.__name__): kind for kind in _BUILTINS for m in ("builtins", "__builtin__")},
    **{(m, "bytes"): _bytes for m in ("builtins", "__builtin__")},
}
