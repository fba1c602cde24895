"""Reading weight files of any public kind without running code that is in them."""

import codecs
import json
import os
from collections.abc import Callable, Container, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dnl_d2.checkpoint.torch_files import LEGACY, load_legacy, load_zip, open_zip
from dnl_d2.checkpoint.unpickled_values import RefusedPickle
from dnl_d2.checkpoint.unpickling import inert_name, load_arrays
from dnl_d2.checkpoint.unreadable import check_entries, check_sizes, explaining
from dnl_d2.errors import UsageError

# Where code bases keep the weights inside a file, perhaps one in another.
_CONTAINERS = (
    "state_dict", "model", "model_state", "model_state_dict", "module", "net", "network", "blobs",
    "params", "weights", "checkpoint", "ema", "model_ema", "ema_state_dict",
)  # fmt: skip
# Bounds, far above what networks need.
_MOST_TENSORS = 1 << 16
_LONGEST_NAME = 300
_LONGEST_HEADER = 1 << 24  # bytes, of a safetensors file
_NOT_WEIGHTS = (
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to get the file itself"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)


@dataclass
class WeightsFile:
    """What a file holds.

    Args:
        state: parameter names and tensors, on the CPU, in the order of the file.
        rest: everything else at the top level, such as ``meta`` or ``optimizer``.
        path: the file.
    """

    state: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)
    path: str = ""


def read_weights(path: str | os.PathLike, *, trust_pickle: bool = False) -> WeightsFile:
    """Reads ``.pth``, ``.pkl``, ``.pdparams`` and ``.safetensors``; the content decides which.

    Args:
        path: the file.
        trust_pickle: let a pickle import and call what it names. It can then do anything that you
            can do: only for files whose origin you trust.

    Raises:
        UsageError: no such file, not a weights file (and what it is instead), truncated, holding
            code in place of weights, or weights that are not finite numbers.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        kind = "a folder, not a file" if os.path.isdir(path) else "no such file"
        raise UsageError(f"{path}: {kind}")
    with explaining(path, trust_pickle=trust_pickle):
        with open(path, "rb") as file:
            head = file.read(512)
        weights = _split(_reader(head, path)(path, trust_pickle))
        check_sizes(weights.state.values(), os.path.getsize(path))
        _check_values(weights.state)
        check_entries(weights.rest)
    weights.path = path
    return weights


def _reader(head: bytes, path: str) -> Callable[[str, bool], Any]:
    if not head:
        raise UsageError("an empty file; download or copy it again")
    for magic, what in _NOT_WEIGHTS:
        if head.lstrip().startswith(magic):
            raise UsageError(f"not a weights file but {what}")
    if head[:2] == b"PK":
        return _read_zip
    if head.startswith(LEGACY):
        return lambda path, trust: _trusted(path) if trust else load_legacy(path)
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return load_arrays
    if head[257:262] == b"ustar":
        raise UsageError("not a weights file but a tar archive: unpack it first")
    if len(head) > 9 and head[8:9] == b"{":
        if int.from_bytes(head[:8], "little") > _LONGEST_HEADER:
            raise UsageError("its header claims a length that no network's has: damaged")
        return _read_safetensors
    text = _as_text(head)
    named_pickle = path.endswith((".pkl", ".pdparams"))  # protocols 0 and 1 have no magic number
    if named_pickle and (text is None or head.startswith((b"(d", b"ccollections"))):
        return load_arrays
    if text is not None:
        if text.startswith("<"):
            raise UsageError(
                f"not a weights file but an HTML or XML page ({text!r}), such as the error page "
                "of a download: download it again"
            )
        raise UsageError(f"not a weights file but text, starting {text!r}")
    raise UsageError("neither a PyTorch, pickle nor safetensors file")


def _as_text(head: bytes) -> str | None:
    """The first words, or None if it is not text."""
    if any(byte < 32 and byte not in b"\t\r\n\f" for byte in head):
        return None
    try:
        # A character may be cut in two at the end.
        return " ".join(codecs.getincrementaldecoder("utf-8-sig")().decode(head).split())[:40]
    except UnicodeDecodeError:
        return None


def _read_zip(path: str, trust: bool) -> Any:
    with open_zip(path) as archive:
        names = archive.namelist()
        if any("/code/" in name or name.endswith("constants.pkl") for name in names):
            raise UsageError("a TorchScript program, not weights: save its state_dict() instead")
        if not any(name.endswith("/data.pkl") for name in names):
            raise UsageError(
                f"not a weights file but a zip archive of {len(names)} files"
                + (f", such as {names[0]!r}: unpack it first" if names else "")
            )
        return _trusted(path) if trust else load_zip(archive)


def _trusted(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=False)


def _read_safetensors(path: str, trust: bool) -> Any:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        keys = file.keys()
        _check_number(keys)
        state = {key: file.get_tensor(key) for key in keys}
    rest = {k: _json(v) for k, v in metadata.items() if k != "format"}
    return {"model": state, **rest}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(content: Any) -> WeightsFile:
    """Finds the weights in what the file holds."""
    if isinstance(content, torch.nn.Module):
        return WeightsFile(_tensors(content.state_dict()))
    if inert_name(content):
        raise RefusedPickle(inert_name(content))
    if not isinstance(content, Mapping):
        raise UsageError(f"holds a {type(content).__name__}, not a dict of weights")
    found = _in_container(content, set())
    if found is not None:
        return found
    state = _tensors(content)
    if not state:
        _require_tensors(content)
        known = ", ".join(map(_name, list(content)[:5])) or "nothing"
        raise UsageError(f"holds no weights (top level: {known})")
    _require_tensors({key: value for key, value in content.items() if "." in _name(key)})
    return WeightsFile(state, _rest(content, state))


def _require_tensors(state: Mapping) -> None:
    for value in state.values():
        if inert_name(value):
            raise RefusedPickle(inert_name(value))


def _in_container(content: Mapping, seen: set[int]) -> WeightsFile | None:
    for name in _CONTAINERS:
        inner = content.get(name)
        if not isinstance(inner, Mapping) or id(inner) in seen:
            continue
        seen.add(id(inner))  # it may be there under many names
        state = _tensors(inner)
        found = WeightsFile(state) if state else _in_container(inner, seen)
        if found is None:
            continue
        if state:
            _require_tensors(inner)
        found.rest |= _rest(content, (name,))
        return found
    return None


def _rest(content: Mapping, taken: Container) -> dict[str, Any]:
    return {
        _name(key): value
        for key, value in content.items()
        if _name(key) not in taken and not inert_name(value)
    }


def _name(key: Any) -> str:
    """A key as a text; what may be endlessly long is called by its kind."""
    plain = isinstance(key, str | bytes | float | bool | None) or type(key) is int
    return str(key) if plain else f"a {type(key).__name__}"


def _check_number(keys: Sized) -> None:
    if len(keys) > _MOST_TENSORS:
        raise UsageError(f"holds {len(keys)} entries in one place, far more than a network has")


def _tensors(mapping: Mapping) -> dict[str, Tensor]:
    _check_number(mapping)
    state = {}
    made: dict[int, Tensor] = {}  # an array that has several names is copied once
    for key, value in mapping.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            if id(value) not in made:
                own = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
                made[id(value)] = torch.from_numpy(own)
            value = made[id(value)]
        if isinstance(value, Tensor):
            name = _name(key)
            if not name.isprintable() or len(name) > _LONGEST_NAME:
                wrong = "is too long" if name.isprintable() else "cannot be printed"
                raise UsageError(f"the name {name[:40]!a} {wrong}: no network's weights")
            state[name] = value.detach()
    return state


def _is_finite(value: Tensor) -> bool:
    """By the extremes, which are NaN where one value is: no array of booleans is made."""
    return not value.numel() or all(map(torch.isfinite, value.float().aminmax()))


def _check_values(state: Mapping[str, Tensor]) -> None:
    for key, value in state.items():
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise UsageError(
                f"{key!r} is sparse, complex or quantised: not a network's plain weights"
            )
    wrong = [
        key for key, value in state.items()
        if value.is_floating_point() and not _is_finite(value)
    ]  # fmt: skip
    if wrong:
        raise UsageError(
            f"{len(wrong)} of {len(state)} tensors hold NaN or infinite values, such as "
            f"{wrong[0]!r}: the training that wrote it had diverged, or the file is damaged"
        )
    whole = [k for k, v in state.items() if v.dim() > 1 and not v.is_floating_point()]
    if whole:
        raise UsageError(f"{whole[0]!r} holds whole numbers: quantised weights are not read")
