"""Pickles that would compute without end, take all memory or reach outside of it."""

import pickle
import struct
import zipfile
from io import BytesIO

import numpy as np


def pickled(steps: bytes) -> bytes:
    return b"\x80\x02" + steps + b"."


def array(values: np.ndarray | None = None) -> bytes:
    """An array's part of a pickle."""
    values = np.zeros(2, np.float32) if values is None else values
    return pickle.dumps(values, protocol=2)[2:-1]


def weight() -> bytes:
    """An entry of a dict, to be put into it."""
    return text("a.b") + array() + b"s"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x0b" + value.to_bytes(11, "little", signed=True)


def some_bytes(length: int) -> bytes:
    return b"c_codecs\nencode\n" + text("A" * length) + text("latin1") + b"\x86R"


def array_type(name: str, fields: bytes = b"NNN", size: int = -1, flags: int = 0) -> bytes:
    """A type of NumPy's with a state that says another thing."""
    sizes = b"".join(map(number, (size, 1 if size > 0 else -1, flags)))
    state = b"(K\x03" + text("|") + fields + sizes + b"t"
    return b"cnumpy\ndtype\n" + text(name) + b"\x89\x88\x87R" + state + b"b"


def built_array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    """An array whose shape and values are set after it was made."""
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return start + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


def from_bytes(kind: bytes, content: bytes, shape: bytes) -> bytes:
    start = b"cnumpy.core.numeric\n_frombuffer\n("
    return start + content + kind + shape + b"U\x01CtR"


def entry(name: str, value: bytes) -> bytes:
    """A dict with it, and with weights."""
    return pickled(b"}" + text(name) + value + b"s" + weight())


def doubled(depth: int) -> bytes:
    """A tuple of a tuple twice, of a tuple twice, ..."""
    return b")" + b"2\x86" * depth


def doubled_list(depth: int) -> bytes:
    return b"]q\x01" + b"0](h\x01h\x01eq\x01" * depth


def many_times(key: bytes, times: int) -> bytes:
    """A dict that is given one key again and again."""
    return pickled(b"}" + key + b"q\x00Ns" + b"h\x00Ns" * times + weight())


def zipped(steps: bytes) -> bytes:
    """A file of PyTorch's with a storage of ten numbers."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickled(steps))
        archive.writestr("a/data/0", bytes(40))
    return buffer.getvalue()


def tensor(offset: int, size: bytes, stride: bytes, key: bytes = text("0")) -> bytes:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + key + text("cpu") + b"K\x0atQ"
    place = storage + number(offset) + size + stride
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + b"\x89}tR"


def one(value: int) -> bytes:
    return number(value) + b"\x85"


def _containers(depth: int) -> bytes:
    names = ("state_dict", "model", "module", "net", "network", "ema", "params", "weights")
    inner = b"".join(text(name) + b"h\x01" for name in names)
    return b"}q\x01" + (b"}(" + inner + b"uq\x01") * depth


_INNER = array_type("f8") + number(10**8) + b"\x86NN"
_OBJECT = b"cnumpy\ndtype\n" + text("O") + b"\x85R"
_FIELD = b"N" + text("a") + b"\x85}" + text("a") + _OBJECT + b"K\x00\x86s"
_SAME_HASH = b"".join(number(2 * n * ((1 << 61) - 1)) + b"N" for n in range(1, 200_000))
_PARTS = b"}(" + text("slices") + b"](" + text("p") + text("q") + b"e" + text("OriginShape") + b"NU"
_KEYS, _RECORDS = "holds keys that no network's file has", "holds arrays of records"
_OUTSIDE = "a tensor outside of its memory"

# Name -> content and what must be said about it.
PICKLES = {
    # Hashing goes through all of a tuple or a number each time.
    "doubled_key.pkl": (pickled(b"}" + doubled(60) + b"Ns" + weight()), _KEYS),
    "doubled_key_by_call.pkl": (
        pickled(b"cbuiltins\nset\n]" + doubled(60) + b"a\x85R0}" + weight()),
        _KEYS,
    ),
    "large_number_as_key.pkl": (
        many_times(b"\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20), 300_000),
        _KEYS,
    ),
    "long_tuple_as_key.pkl": (many_times(b"(" + b"N" * 300_000 + b"t", 300_000), _KEYS),
    "keys_of_one_hash.pkl": (pickled(b"}(" + _SAME_HASH + b"u" + weight()), _KEYS),
    # NumPy believes a type's state: numbers behind the array's end, bytes as addresses of objects.
    "subarrays.pkl": (
        entry("c.d", built_array(b"K\x04\x85", array_type("f8", _INNER), some_bytes(32))),
        _RECORDS,
    ),
    "addresses.pkl": (
        entry("c", from_bytes(array_type("V8", _FIELD, 8), some_bytes(24), b"K\x03\x85")),
        _RECORDS,
    ),
    "objects.pkl": (
        entry("c", built_array(one(10**9), _OBJECT, b"]")),
        "an array of more values than there are",
    ),
    "no_size.pkl": (
        entry("c", built_array(one(10**15), array_type("S0", size=0), some_bytes(0))),
        "an array of more values than there are",
    ),
    # A small thing that is written out, copied or looked through very often.
    "text.pkl": (
        pickled(b"cbuiltins\nstr\n" + doubled_list(60) + b"\x85R0}" + weight()),
        r"run code \(str\)",
    ),
    "numbers_as_objects.pkl": (
        pickled(b"cbuiltins\nlist\n" + array(np.zeros(1000, np.float32)) + b"\x85R"),
        r"run code \(list\)",
    ),
    "containers.pkl": (pickled(_containers(12)), "holds no weights"),
    "names_of_one_array.pkl": (
        pickled(
            b"}" + array(np.zeros(1_000_000, np.float32)) + b"q\x640("
            + b"".join(text(f"k{n}.w") + b"h\x64" for n in range(1000)) + b"u"
        ),
        "would be 4000000000 bytes",
    ),
    "config.pkl": (
        pickled(
            text("x" * 100_000) + b"q\x050}" + text("meta") + b"}" + text("config") + b"]("
            + b"h\x05" * 200_000 + b"ess" + weight()
        ),
        "holds parts of itself many times over",
    ),
    "parts.pkl": (
        pickled(
            b"}(" + text("UnpackBigParamInfor@@") + b"}" + text("w") + _PARTS[:-1] + b"us"
            + text("p") + array(np.array(["a"] * 100_000))
            + text("q") + array(np.array(["b" * 50_000])) + b"u" + weight()
        ),
        "the parts of 'w' are not of one kind",
    ),
    # Tensors that are not where their memory is.
    "grows.pth": (zipped(b"}" + text("a.b") + tensor(0, one(10**9), one(1)) + b"s"), _OUTSIDE),
    "behind.pth": (zipped(b"}" + text("a.b") + tensor(6, one(5), one(1)) + b"s"), _OUTSIDE),
    "before.pth": (zipped(b"}" + text("a.b") + tensor(-5, one(5), one(1)) + b"s"), _OUTSIDE),
    "backwards.pth": (
        zipped(b"}" + text("a.b") + tensor(9, one(5), one(-1)) + b"s"),
        "no tensor's shape",
    ),
    "written_to.pth": (
        zipped(b"}" + text("a.b") + tensor(0, one(10**12), one(0)) + b"NK\x01ss"),
        "no dict to add to",
    ),
    "added_to.pth": (
        zipped(b"}" + text("a.b") + tensor(0, one(10**9), one(0)) + b"(K\x01\x90s"),
        "no set to add to",
    ),
    "memory_by_a_tuple.pth": (
        zipped(b"}" + text("a.b") + tensor(0, one(1), one(1), doubled(60)) + b"s"),
        "no tensor's memory",
    ),
}  # fmt: skip
