"""Pickles, plain ones and those in PyTorch's files, read without running what they name.

Arrays and plain containers are built. What names anything else, such as the logs and configs that
training frameworks save beside the weights, gets an object that does nothing. A small file can make
no more than a multiple of itself, and takes seconds at most.
"""

import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from inspect import isroutine
from typing import Any, BinaryIO, ClassVar

import numpy as np
from torch import Tensor

from dnl_d2.checkpoint.unpickled_values import (
    HASHING,
    RefusedPickle,
    known_value,
    set_array,
    set_array_type,
)
from dnl_d2.errors import UsageError

# A file of weights that names these was made to do harm: it is not read at all.
_HARMFUL = ("os", "posix", "nt", "sys", "subprocess")
_SPLIT = "UnpackBigParamInfor@@"  # PaddlePaddle's note on arrays that it has cut up

# Bounds, far above what networks need.
_MOST_READS = 3_500_000  # a tensor takes about 50, and a million take a second or two
_DEEPEST = 100  # tuples in tuples: hashing a key recurses without a limit
_COPIES = 4  # how often what calls are given may be the whole file
_CLASS = 1000  # what a class that is not there costs, in bytes
_ODD_KEYS = 10_000  # keys that are costly to hash, or that may be chosen to have one hash
_PLAIN_KEYS = (str, bytes, float, bool, type(None))
_LARGEST_KEY = 1 << 60  # of a whole number: up to there each has a hash of its own


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
        self._odd_keys = _ODD_KEYS
        self._depths: dict[int, int] = {}
        self._costs: dict[int, int] = {}  # of tuples: how many entries hashing looks at
        self._tuples: list[tuple] = []  # kept, or another could get the id of one that is gone
        self._inert: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.known:
            return self.known[module, name]
        known = known_value(module, name)
        if known is not None:
            return known
        if module.partition(".")[0] in _HARMFUL:
            raise RefusedPickle(f"{module}.{name}")
        if (module, name) not in self._inert:
            self._spend(_CLASS)
            self._inert[module, name] = type(name, (Inert,), {"__module__": module})
        return self._inert[module, name]

    def load_build(self) -> None:
        """Sets the state of an object; that of a class or function would outlive the reading."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, type) or isroutine(target):
            raise RefusedPickle(f"the state of {target.__name__}")
        self._set_state(target, state)

    def _set_state(self, target: Any, state: Any) -> None:
        """Of arrays and their types; what else an object may have noted on it is left out."""
        if isinstance(target, np.ndarray):
            self._pay(state)
            set_array(target, state)
        elif isinstance(target, np.dtype):
            set_array_type(target, state)

    def load_reduce(self) -> None:
        """Calls what was found; nothing is rebuilt from what is not there."""
        function, arguments = self.stack[-2:]
        if isroutine(function):
            for argument in arguments:
                if inert_name(argument):
                    raise RefusedPickle(inert_name(argument))
        self._check_call(function, arguments)
        super().load_reduce()
        self._measure()

    def load_newobj(self) -> None:
        self._check_call(*self.stack[-2:])
        super().load_newobj()
        self._measure()

    def load_newobj_ex(self) -> None:
        kind, arguments, named = self.stack[-3:]
        self._check_call(kind, [*arguments, *named.values()])
        super().load_newobj_ex()
        self._measure()

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        self._check_call(kind, arguments)
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

    def load_append(self) -> None:
        self._require(-2, list)
        super().load_append()

    def load_appends(self) -> None:
        self._require_below(list)
        super().load_appends()

    def load_setitem(self) -> None:
        self._require(-3, dict)
        self._hash(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._require_below(dict)
        self._hash(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._hash(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        self._require_below(set)
        self._hash(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        self._hash(self.stack)
        super().load_frozenset()

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
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: load_tuple1,
        pickle.TUPLE2[0]: load_tuple2,
        pickle.TUPLE3[0]: load_tuple3,
        pickle.FRAME[0]: load_frame,
    }

    def _require(self, place: int, kind: type) -> None:
        """What is added to is a container: writing to an array may be endless."""
        if not isinstance(self.stack[place], kind | Inert):
            raise pickle.UnpicklingError(f"no {kind.__name__} to add to")

    def _require_below(self, kind: type) -> None:
        """As :meth:`_require`, of what is below the mark."""
        if not isinstance(self.metastack[-1][-1], kind | Inert):
            raise pickle.UnpicklingError(f"no {kind.__name__} to add to")

    def _check_call(self, function: Any, arguments: Sequence[Any]) -> None:
        """What a call may cost is bounded."""
        self._pay(arguments)
        if isinstance(function, type) and not issubclass(function, Inert):
            if any(isinstance(part, np.ndarray | Tensor) for part in arguments):
                raise RefusedPickle(function.__name__)  # each number would be an object
            if issubclass(function, HASHING):
                for part in arguments:  # a class may be among them, of a defaultdict
                    entries = part if isinstance(part, _COLLECTIONS) else ()
                    self._hash(entries)
                    self._hash(e[0] for e in entries if isinstance(e, list | tuple) and e)

    def _hash(self, keys: Iterable[Any]) -> None:
        """Before keys are hashed: texts and small numbers cost nothing, others are few."""
        for key in keys:
            if type(key) in _PLAIN_KEYS or isinstance(key, list):  # the latter raises an error
                continue
            if type(key) is not int:
                self._odd_keys -= self._costs.get(id(key), 1)
            elif abs(key) >= _LARGEST_KEY:
                self._odd_keys -= 1 + key.bit_length() // 64
            if self._odd_keys < 0:
                raise UsageError("holds keys that no network's file has")

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
        """How deep and how large, with each of its own, the tuple is that was built last."""
        made = self.stack[-1]
        if not isinstance(made, tuple):
            return
        inner = [self._depths.get(id(part), 0) for part in made if isinstance(part, tuple)]
        depth = 1 + max(inner, default=0)
        if depth > _DEEPEST:
            raise UsageError("holds tuples in tuples without end: no weights file")
        self._depths[id(made)] = depth
        self._costs[id(made)] = 1 + sum(self._cost(part) for part in made)
        self._tuples.append(made)

    def _cost(self, part: Any) -> int:
        """How many entries hashing looks at, which notes no hash of tuples and numbers."""
        if isinstance(part, tuple):
            return self._costs.get(id(part), 1)
        return 1 + part.bit_length() // 64 if isinstance(part, int) else 1


_COLLECTIONS = (list, tuple, dict, set, frozenset)
_SIZED = (str, bytes, *_COLLECTIONS)


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
        parts = [joined.pop(name) for name in note["slices"]]
        kinds = {part.dtype for part in parts}  # of several, all would take the largest
        if len(kinds) != 1 or kinds.pop().kind not in "fiub":
            raise UsageError(f"the parts of {key!r:.50} are not of one kind of numbers")
        parts = [part.ravel() for part in parts]
        joined[key] = np.concatenate(parts).reshape(note["OriginShape"])
    return joined
