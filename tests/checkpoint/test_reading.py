import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dnl_d2.checkpoint import read_weights
from dnl_d2.errors import UsageError
from tests.checkpoint.models import assert_equal

STATE = OrderedDict(
    [("conv.weight", torch.randn(40, 30)), ("bn.num_batches_tracked", torch.tensor(3))]
)


class Runs:
    """Unpickling it creates the file whose name it holds."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def torch_bytes(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def arrays() -> dict:
    return {key: value.numpy() for key, value in STATE.items()}


def assert_is_state(weights):
    assert list(weights.state) == list(STATE)
    assert_equal(weights.state, STATE)


@pytest.mark.parametrize("container", ["state_dict", "model", None])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_formats(container, zipped, tmp_path):
    content = {container: STATE, "meta": {"CLASSES": ("a", "b")}} if container else STATE
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(content, _use_new_zipfile_serialization=zipped))
    weights = read_weights(path)
    assert_is_state(weights)
    assert weights.rest == ({"meta": {"CLASSES": ("a", "b")}} if container else {})


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_home", ["numpy._core", "numpy.core"])
def test_pickles_of_arrays(protocol, numpy_home, tmp_path):
    content = pickle.dumps({"model": arrays(), "__author__": "someone"}, protocol=protocol)
    if protocol < 4:  # later ones note the length of names
        content = content.replace(b"numpy._core.", f"{numpy_home}.".encode())
    (tmp_path / "w.pkl").write_bytes(content)
    weights = read_weights(tmp_path / "w.pkl")
    assert_is_state(weights)
    assert weights.rest == {"__author__": "someone"}


def test_paddle_files_with_an_array_cut_up(tmp_path):
    big = np.arange(12, dtype=np.float32).reshape(3, 4)
    content = {
        "small": np.ones(2, np.float32),
        "big@@.0": big.ravel()[:7],
        "big@@.1": big.ravel()[7:],
        "StructuredToParameterName@@": {"small": "conv_0.w_0"},
        "UnpackBigParamInfor@@": {"big": {"OriginShape": (3, 4), "slices": ["big@@.0", "big@@.1"]}},
    }
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(content, protocol=2))
    weights = read_weights(tmp_path / "w.pdparams")
    assert set(weights.state) == {"small", "big"}
    assert torch.equal(weights.state["big"], torch.from_numpy(big))


def test_safetensors_with_metadata(tmp_path):
    save_file(dict(STATE), tmp_path / "w.safetensors", {"classes": json.dumps(["a"]), "by": "me"})
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.rest == {"classes": ["a"], "by": "me"}
    assert torch.equal(weights.state["conv.weight"], STATE["conv.weight"])


def test_the_config_in_a_torchcv_file(tmp_path, monkeypatch):
    """It is of a class of pyhocon, a dict, and is read without pyhocon."""
    module = types.ModuleType("pyhocon.config_tree")
    module.ConfigTree = type("ConfigTree", (OrderedDict,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "pyhocon", types.ModuleType("pyhocon"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    tree = module.ConfigTree(network=module.ConfigTree(temp=0.05, whiten_type=["channel"]))
    torch.save({"config_dict": tree, "state_dict": STATE}, tmp_path / "w.pth")
    monkeypatch.undo()
    weights = read_weights(tmp_path / "w.pth")
    assert_is_state(weights)
    assert weights.rest["config_dict"]["network"]["whiten_type"] == ["channel"]


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_files_that_would_run_code_are_refused(kind, tmp_path):
    proof = tmp_path / "ran"
    content = {"state_dict": STATE, "extra": Runs(proof)}
    path = tmp_path / ("w.pkl" if kind == "pickle" else "w.pth")
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": arrays(), "extra": Runs(proof)}))
    else:
        path.write_bytes(torch_bytes(content, _use_new_zipfile_serialization=kind == "zip"))
    with pytest.raises(UsageError, match=r"would run code \(posix.mkdir\).*--trust-pickle"):
        read_weights(path)
    assert not proof.exists()
    assert_is_state(read_weights(path, trust_pickle=True))
    assert proof.exists()


class Logs:
    """As training frameworks save beside the weights: with attributes, items and elements."""

    def __init__(self):
        self.values = np.ones(3)


class Config(dict):
    pass


class Steps(list):
    pass


def others():
    return {
        "logs": Logs(),
        "config": Config(lr=0.1),
        "steps": Steps([1]),
        "function": assert_is_state,
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_classes_that_are_not_there_do_not_matter(kind, tmp_path, monkeypatch):
    path = tmp_path / ("w.pkl" if kind == "pickle" else "w.pth")
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"model": arrays(), "epoch": 3, "hub": others(), **others()}))
    else:
        content = {"state_dict": STATE, "epoch": 3, "hub": others(), **others()}
        path.write_bytes(torch_bytes(content, _use_new_zipfile_serialization=kind == "zip"))
    for name in ("Logs", "Config", "Steps"):
        monkeypatch.delattr(f"{__name__}.{name}")
    weights = read_weights(path)
    assert_is_state(weights)
    assert weights.rest.pop("hub").keys() == {"logs", "config", "steps", "function"}
    assert weights.rest == {"epoch": 3}
    with pytest.raises(UsageError, match=r"cannot be imported here .*without --trust-pickle"):
        read_weights(path, trust_pickle=True)


def test_a_training_checkpoint_of_mmengine(tmp_path):
    from mmengine.logging import MessageHub

    hub = MessageHub("reading")
    hub.update_scalar("train/loss", 0.5)
    hub.update_info("dataset_meta", {"classes": ("a", "b")})
    content = {"meta": {"iter": 4}, "state_dict": STATE, "message_hub": hub.state_dict()}
    torch.save(content, tmp_path / "iter_4.pth")
    weights = read_weights(tmp_path / "iter_4.pth")
    assert_is_state(weights)
    assert weights.rest["meta"] == {"iter": 4}


def test_weights_that_are_objects_are_not_lost_without_a_word(tmp_path):
    odd = dict(STATE, **{"conv.scale": Logs()})
    for content in ({"model": odd}, odd, {"model": Logs(), "epoch": 3}, Logs()):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UsageError, match=r"would run code \(.*Logs\)"):
            read_weights(tmp_path / "w.pth")


def test_a_plain_pickle_of_tensors_needs_trust(tmp_path):
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(STATE))
    with pytest.raises(UsageError, match=r"would run code \(torch._utils._rebuild_tensor_v2\)"):
        read_weights(tmp_path / "own.pkl")
    assert_is_state(read_weights(tmp_path / "own.pkl", trust_pickle=True))


def test_what_trainers_note_in_containers_of_the_standard_library(tmp_path):
    noted = {
        "by_class": defaultdict(list, a=[1]),
        "counts": Counter("aab"),
        "sets": {frozenset({1, 2}), (3, 4)},
        "name": np.str_(""),
    }
    torch.save({"state_dict": STATE, **noted}, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert_is_state(weights)
    assert weights.rest == noted


@pytest.mark.parametrize("name", ["collections\nCounter", "numpy.core.numeric\n_frombuffer"])
def test_reading_changes_no_class_or_function(name, tmp_path):
    """As the state that a pickle sets would."""
    state = b"(N}Vupdate\ncbuiltins\nlist\nst"
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02c" + name.encode() + b"\n" + state + b"b.")
    before = Counter.update
    with pytest.raises(UsageError, match="would run code"):
        read_weights(tmp_path / "w.pkl")
    assert Counter.update is before
    assert not hasattr(np._core.numeric._frombuffer, "update")


@pytest.mark.parametrize(
    "keys",
    [
        "model_state_dict",
        "module",
        "net",
        "ema",
        "checkpoint.state_dict",
        "state_dict.model",
        "model.model",
    ],
)
def test_containers(keys, tmp_path):
    content = STATE
    for key in reversed(keys.split(".")):
        content = {key: content, f"beside_{key}": 1}
    torch.save(content, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert_is_state(weights)
    assert weights.rest == {f"beside_{key}": 1 for key in keys.split(".")}


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name -> content and what must be said about it."""
    zipped, legacy = torch_bytes(STATE), torch_bytes(STATE, _use_new_zipfile_serialization=False)
    pickled = pickle.dumps(arrays())
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("images/0001.png", "x")
    script = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), script)
    return {
        "cut_zip.pth": (zipped[: len(zipped) // 2], "truncated"),
        "cut_legacy.pth": (legacy[: len(legacy) // 2], "truncated"),
        "cut.pdparams": (pickled[: len(pickled) // 2], "truncated"),
        "empty.pth": (b"", "an empty file"),
        "page.pth": (b"\n<!DOCTYPE html><title>404</title>", "an HTML or XML page"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        "notes.pth": (b"just some notes\n", "text, starting 'just some notes'"),
        "photos.pth": (other.getvalue(), "zip archive of 1 files, such as 'images/0001.png'"),
        "script.pth": (script.getvalue(), "TorchScript"),
        "noise.pth": (bytes(range(128, 256)) * 4, "neither a PyTorch, pickle nor safetensors"),
        "list.pth": (torch_bytes([1, 2]), "holds a list"),
        "none.pth": (torch_bytes({"epoch": 3}), r"no weights \(top level: epoch\)"),
        "nan.pth": (
            torch_bytes({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])}),
            "1 of 2 tensors hold NaN or infinite values, such as 'b'",
        ),
        "name.pth": (torch_bytes({"a\nb": torch.ones(2)}), r"the name 'a\\nb' cannot be printed"),
        "sparse.pth": (torch_bytes({"a": torch.eye(3).to_sparse()}), "holds sparse"),
        "int.pth": (torch_bytes({"a": torch.ones(2, 2).int()}), "'a' holds whole numbers"),
        "big.pth.gz": (b"\x1f\x8b" + bytes(600), "gzip archive"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_files_get_one_line_that_names_them(name, tmp_path):
    content, message = bad_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_weights(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_cut_safetensors_file(tmp_path):
    save_file(dict(STATE), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    for length in (20, len(content) - 100):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(UsageError, match="truncated or damaged"):
            read_weights(tmp_path / "cut.safetensors")


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(UsageError, match="a folder"):
        read_weights(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        read_weights(tmp_path / "gone.pth")
