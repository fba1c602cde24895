"""Weight files that were damaged or made to do harm end in a short line, at little cost."""

import io
import pickle
import resource
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch

from dnl_d2.checkpoint import read_weights
from dnl_d2.errors import UsageError
from tests.checkpoint.hostile_pickles import PICKLES, array, pickled, weight
from tests.checkpoint.models import assert_equal
from tests.limits import ten_seconds

STATE = {"a.weight": torch.randn(300, 10), "a.bias": torch.randn(10)}


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def rezipped(content: bytes, change=lambda name, data: data, **options) -> bytes:
    """The zip anew, with members changed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", **options) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def with_twins(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")
    return buffer.getvalue()


def claiming(content: bytes) -> bytes:
    """Files whose tensors of 10 numbers claim two billion."""
    for ending in (b"Nt", b"t"):
        content = content.replace(b"K\n" + ending, b"J\x00\x00\x00\x70" + ending)
    return content


def hostile() -> dict[str, tuple[bytes, str]]:
    """Name -> content and what must be said about it."""
    zipped, legacy = saved(STATE), saved(STATE, _use_new_zipfile_serialization=False)
    text = b"X\x00\x00\x10\x00" + b"a" * (1 << 20)
    big_key = b"X" + struct.pack("<I", 500) + b"k" * 500
    many = dict.fromkeys(map(str, range(70_000)), np.zeros(1, np.float32))
    return {
        "flipped.pth": (flipped(zipped), "damaged .*CRC"),
        "twice.pth": (with_twins(zipped), "holds a name twice"),
        "deflated.pth": (rezipped(zipped, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        "claims.pth": (
            rezipped(zipped, lambda _, data: claiming(data)),
            "bytes of 1 wanted, 40 are there",
        ),
        "claims_legacy.pth": (claiming(legacy), "the end of the file is missing"),
        "expanded.pth": (saved({"a": torch.ones(1).expand(10**9)}), "would be 4000000000 bytes"),
        "bytes.pkl": (pickled(b"cbuiltins\nbytes\nI9000000000\n\x85R"), r"run code \(bytes\)"),
        "array.pkl": (pickled(b"cnumpy\nndarray\nI4000000000\n\x85R"), "damaged"),
        "bytearray.pkl": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b".", "end of the file"),
        "text.pkl": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 33) + b"a.", "end of the file"),
        # One text of a megabyte, encoded a hundred thousand times.
        "copies.pkl": (
            pickled(b"]" + text + b"q\x010" + b"c_codecs\nencode\nh\x01\x85Ra" * 100_000),
            "makes far more of itself",
        ),
        "classes.pkl": (
            pickled(b"".join(b"ca\nb%d\n0" % number for number in range(50_000)) + b"}"),
            "makes far more of itself",
        ),
        "tuples.pkl": (pickled(b"})" + b"\x85" * 500_000 + b"K\x01s"), "tuples in tuples"),
        "tuples_by_call.pkl": (
            pickled(b"}" + nested_by_calls(500) + b"K\x01s"),
            "tuples in tuples",
        ),
        "nested.pkl": (
            pickled(b"}X\x05\x00\x00\x00model" * 100_000 + b"}" + b"s" * 100_000),
            "damaged .*RecursionError",
        ),
        "steps.pkl": (pickled(b"N0" * 2_000_000 + b"}"), "far more entries than a network"),
        "keys.pkl": (pickle.dumps(many, protocol=2), "holds 70000 entries"),
        "name.pkl": (pickled(b"}" + big_key + array() + b"s"), "'k{40}' is too long"),
        "names.pkl": (
            pickle.dumps({"k" * 10**6 + str(number): 1 for number in range(5)}),
            "holds no weights",
        ),
        "laughs.pkl": (
            pickled(
                b"}X\x04\x00\x00\x00meta]q\x01" + b"0](h\x01h\x01eq\x01" * 60 + b"s" + weight()
            ),
            "holds parts of itself many times over",
        ),
        "header.safetensors": (struct.pack("<Q", 90_000_000) + b"{}", "claims a length"),
    }


def nested_by_calls(depth: int) -> bytes:
    """A tuple in a tuple, each made of a list by calling ``tuple``."""
    return b"cbuiltins\ntuple\n]" * depth + b")" + b"a\x85R" * depth


def flipped(content: bytes) -> bytes:
    """With a bit of the weights turned."""
    at = content.index(STATE["a.weight"].numpy().tobytes()[:40]) + 5
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.fixture
def little_memory():
    """Half a gigabyte more than the process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 29), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", [*hostile(), *PICKLES])
def test_each_ends_in_a_short_line(name, tmp_path):
    content, message = PICKLES[name] if name in PICKLES else hostile()[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error, ten_seconds():
        read_weights(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) - len(str(path)) < 350


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        assert archive.testzip() is not None
    assert_equal(read_weights(tmp_path / "w.pth").state, STATE)


def test_a_class_is_not_imported(tmp_path):
    """Some names of PyTorch's are modules that are imported when they are first named."""
    name = "_inductor"
    path = tmp_path / "w.pkl"
    path.write_bytes(pickled(b"ctorch\n" + name.encode() + b"\n0}" + weight()))
    loaded = sys.modules.pop(f"torch.{name}", None)
    had = torch.__dict__.pop(name, None)
    try:
        assert [*read_weights(path).state] == ["a.b"]
        assert f"torch.{name}" not in sys.modules
    finally:
        if loaded is not None:
            sys.modules[f"torch.{name}"] = loaded
        if had is not None:
            setattr(torch, name, had)


def test_what_arrays_may_be(tmp_path):
    """Beside the weights: texts, objects, times; weights of another byte order."""
    beside = {
        "texts": np.array(["a", "bcd"]),
        "objects": np.array([1, None, ["x"]], dtype=object),
        "times": np.zeros(1, "M8[s]"),
        "number": np.float64(3),
        "pairs": {(1, 2): "x", 3: "y"},
        "empty": np.zeros((0, 5)),
    }
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"a.b": np.arange(4, dtype=">f8"), **beside}, protocol=2))
    found = read_weights(path)
    assert found.state["a.b"].tolist() == [0, 1, 2, 3] and found.state["empty"].shape == (0, 5)
    assert found.rest["texts"].tolist() == ["a", "bcd"] and found.rest["number"] == 3
    assert found.rest["objects"].tolist() == [1, None, ["x"]]
    assert found.rest["pairs"] == beside["pairs"]
