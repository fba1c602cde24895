"""PyTorch's own files, the zips of today and what came before 1.6: read with checksums and bounds.

``torch.load`` checks no checksum, although its zips hold one for each member, and takes the memory
that a file claims to need. Here nothing is built that is not in the file.
"""

import contextlib
import io
import os
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch
from torch import Tensor

from dnl_d2.checkpoint.unpickled_values import RefusedPickle
from dnl_d2.checkpoint.unpickling import Metered, SafeUnpickler, inert_name
from dnl_d2.errors import UsageError

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before PyTorch 1.6
_MOST_MEMBERS = 1 << 16
_LONGEST_DIRECTORY = 1 << 23  # bytes, of a zip: some 100 a member
_CHUNK = 1 << 20
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,  # of kinds that came later: the tensor says which
}


class _Storage(NamedTuple):
    """The memory of tensors.

    Args:
        content: (bytes,) uint8.
        dtype: of what is in it.
        start: its first element; others are of another storage, in files of before PyTorch 0.4.
    """

    content: Tensor
    dtype: torch.dtype
    start: int = 0


class _Modest(io.BufferedReader):
    """A file of which a zip's directory is read only if it is no longer than one of PyTorch's."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LONGEST_DIRECTORY:
            raise UsageError("a zip archive of far more files than a network has tensors")
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive.

    Raises:
        UsageError: it is cut off, or has very many members.
        zipfile.BadZipFile: damaged.
    """
    with _Modest(io.FileIO(path)) as file:
        if not zipfile.is_zipfile(file):
            raise UsageError("truncated: the end of the file is missing; download or copy it again")
        with zipfile.ZipFile(file) as archive:
            yield archive


def load_zip(archive: zipfile.ZipFile, classes: Collection[type] | None = None) -> Any:
    """Reads what ``torch.save`` writes, each member against its checksum.

    Files that were written without checksums (``torch.serialization.set_crc32_options``) are read
    as they are.

    Args:
        archive: with a member ``data.pkl`` in a folder.
        classes: whose objects, and no others, are read with their attributes; None for those of no
            class, in whose places are objects that do nothing.

    Raises:
        UsageError: not as PyTorch writes it.
        zipfile.BadZipFile: damaged.
        RefusedPickle: an object of another class; see
            :class:`dnl_d2.checkpoint.unpickling.SafeUnpickler`.
    """
    members = _sound_members(archive)
    name = next((name for name in members if name.endswith("/data.pkl")), "")
    if not name:
        raise UsageError("a zip archive, but none of PyTorch's")
    folder = name.removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    big = order is not None and archive.read(order) == b"big"
    storages = _ZipStorages(archive, members, folder, swap=big is (sys.byteorder == "little"))
    pickled = io.BytesIO(archive.read(members[name]))
    return _TorchUnpickler(Metered(pickled), storages, classes).load()


def _sound_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name, to be read against their checksums if they have any."""
    size = os.path.getsize(archive.filename or "")
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise UsageError("holds a name twice, as no file of PyTorch's does: get it anew")
    if len(members) > _MOST_MEMBERS:
        raise UsageError(f"holds {len(members)} files, far more than a network has tensors")
    for member in members.values():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UsageError("is compressed, as no file of PyTorch's is: save it anew")
    if sum(member.file_size for member in members.values()) > size:
        raise UsageError("claims to hold more than its size: truncated or damaged")
    if not any(member.CRC for member in members.values()):  # written without: nothing to check
        for member in members.values():
            del member.CRC
    return members


class _ZipStorages:
    """Storages that are members of an archive, each read once."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        members: Mapping[str, zipfile.ZipInfo],
        folder: str,
        *,
        swap: bool,
    ):
        self._archive, self._members, self._folder = archive, members, folder
        self._swap = swap
        self._read: dict[str, Tensor] = {}

    def get(self, key: str, length: int, dtype: torch.dtype) -> Tensor:
        """The bytes called ``key``, ``length`` of them."""
        if key not in self._read:
            member = self._members[f"{self._folder}data/{key}"]
            content = torch.empty(member.file_size, dtype=torch.uint8)
            with self._archive.open(member) as file:
                fill(file, content)
            if self._swap:
                content.untyped_storage().byteswap(dtype)
            self._read[key] = content
        if len(self._read[key]) != length:
            raise EOFError(f"{length} bytes of {key} wanted, {len(self._read[key])} are there")
        return self._read[key]


def fill(file: Any, content: Tensor) -> None:
    """Reads as many bytes as the tensor has, to the end of the member, where it is checked."""
    view, at = content.numpy().data, 0
    while chunk := file.read(min(_CHUNK, len(view) - at)):
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    if at < len(view):
        raise EOFError("the end of the file is missing")


def load_legacy(path: str) -> Any:
    """Reads what ``torch.save`` wrote before PyTorch 1.6: pickles, then the bytes of storages.

    Raises:
        RefusedPickle, UsageError: see :class:`dnl_d2.checkpoint.unpickling.SafeUnpickler`.
    """
    with open(path, "rb") as file:
        metered = Metered(file)
        for _ in range(3):  # the magic number, the protocol, the machine
            SafeUnpickler(metered).load()
        storages = _LegacyStorages(metered.size)
        content = _TorchUnpickler(metered, storages).load()
        keys = SafeUnpickler(metered).load()
        storages.fill(file, keys)
    return content


class _LegacyStorages:
    """Storages whose bytes follow all pickles; until then they are zeros."""

    def __init__(self, size: int):
        self._left = size
        self._made: dict[str, _Storage] = {}

    def get(self, key: str, length: int, dtype: torch.dtype) -> Tensor:
        """The bytes called ``key``, ``length`` of them."""
        if key not in self._made:
            self._left -= length
            if length < 0 or self._left < 0:
                raise EOFError("the end of the file is missing")
            self._made[key] = _Storage(torch.zeros(length, dtype=torch.uint8), dtype)
        if len(self._made[key].content) != length:
            raise EOFError(f"{length} bytes of {key} wanted, where there are others")
        return self._made[key].content

    def fill(self, file: BinaryIO, keys: Sequence[str]) -> None:
        """Reads the bytes of all, in the order of ``keys``; they are little-endian everywhere."""
        if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(self._made):
            raise EOFError("its tensors are not those that it lists")
        for key in keys:
            content, dtype, _ = self._made[key]
            elements = int.from_bytes(file.read(8), "little")
            if elements * dtype.itemsize != len(content):
                raise EOFError(f"a tensor of {elements} elements, where others are listed")
            fill(file, content)
            if sys.byteorder == "big":
                content.untyped_storage().byteswap(dtype)


class _TorchUnpickler(SafeUnpickler):
    """Builds tensors on the memory that ``storages`` gives."""

    dispatch: ClassVar[dict] = SafeUnpickler.dispatch

    def __init__(
        self,
        file: Metered,
        storages: _ZipStorages | _LegacyStorages,
        classes: Collection[type] | None = None,
    ):
        super().__init__(file, encoding="utf-8")
        self._storages, self._classes = storages, classes

    def find_class(self, module: str, name: str) -> Any:
        for kind in self._classes or ():
            if (kind.__module__, kind.__name__) == (module, name):
                return kind
        found = super().find_class(module, name)
        if self._classes is not None and inert_name(found):
            raise RefusedPickle(f"{module}.{name}")
        return found

    def _check_call(self, function: Any, arguments: Sequence[Any]) -> None:
        super()._check_call(function, arguments)
        # Without arguments nothing of the class itself is run: attributes follow.
        if isinstance(function, type) and function in (self._classes or ()) and arguments:
            raise RefusedPickle(f"{function.__module__}.{function.__name__}")

    def _set_state(self, target: Any, state: Any) -> None:
        if type(target) in (self._classes or ()):
            vars(target).update(state)
        else:
            super()._set_state(target, state)

    def persistent_load(self, reference: tuple) -> _Storage:
        if reference[0] == "module":  # a whole network of Python objects
            raise RefusedPickle(inert_name(reference[1]))
        _, dtype, key, _, elements, *view = reference
        if not isinstance(dtype, torch.dtype):
            _not_plain()
        if type(key) is not str or type(elements) is not int:
            raise EOFError("no tensor's memory")
        content = self._storages.get(key, elements * dtype.itemsize, dtype)
        return _Storage(content, dtype, view[0][1] if view and view[0] else 0)


def _rebuild_tensor(
    storage: _Storage,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    return _view(storage, storage.dtype, offset, size, stride, metadata)


def _rebuild_tensor_v3(
    storage: _Storage,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    metadata: Any = None,
) -> Tensor:
    return _view(storage, dtype, offset, size, stride, metadata)


def _view(
    storage: _Storage,
    dtype: torch.dtype,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    metadata: Any,
) -> Tensor:
    if metadata:
        raise UsageError("holds conjugated or negated tensors: not a network's plain weights")
    memory = storage.content.untyped_storage()
    start, size, stride = storage.start + offset, _numbers(size), _numbers(stride)
    last = start + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # PyTorch would enlarge the memory.
    if start < 0 or (0 not in size and last >= memory.nbytes() // dtype.itemsize):
        raise EOFError("a tensor outside of its memory")
    return torch.empty(0, dtype=dtype).set_(memory, start, size, stride)


def _numbers(values: Any) -> tuple[int, ...]:
    """Sizes or strides of a tensor."""
    if not isinstance(values, tuple | list) or any(type(n) is not int or n < 0 for n in values):
        raise EOFError("no tensor's shape")
    return tuple(values)


def _same(tensor: Tensor, *_: Any) -> Tensor:
    """A parameter is its tensor, with what trainers note on it."""
    return tensor


def _rebuild_from_type(function: Any, kind: Any, arguments: Sequence, state: Any) -> Any:
    """A tensor of a class of its own, or with attributes, without these."""
    rebuild = (_rebuild_tensor, _rebuild_tensor_v3, _same)
    return function(*arguments) if function in rebuild else None


def _not_plain(*_: Any) -> None:
    raise UsageError("holds sparse or quantised tensors: not a network's plain weights")


_TorchUnpickler.known = {
    **{(m, n): d for n, d in _DTYPES.items() for m in ("torch", "torch.storage", "torch.cuda")},
    **{("torch._utils", f"_rebuild_tensor{v}"): _rebuild_tensor for v in ("", "_v2")},
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _same,
    ("torch._utils", "_rebuild_parameter_with_state"): _same,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._utils", "_rebuild_sparse_tensor"): _not_plain,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _not_plain,
    ("torch._utils", "_rebuild_qtensor"): _not_plain,
}
