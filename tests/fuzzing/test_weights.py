"""Weight files of every source, damaged: an error in a line, or the very same weights."""

import os
import pickle

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from dnl_d2.checkpoint import SOURCES, Checkpointer, convert_back, read_weights
from dnl_d2.checkpoint.convert_file import convert_file
from tests.checkpoint.models import DETECTOR, SEGMENTOR, build
from tests.fuzzing.mutations import TIMES, damaged, outcome

NAMES = [source.name for source in SOURCES]
_DETECTORS = ("mmdet", "dnl-det", "gcnet")


@pytest.fixture(scope="module")
def models() -> dict:
    return {"segmentor": build(SEGMENTOR), "detector": build(DETECTOR)}


@pytest.fixture(scope="module")
def public(models) -> dict:
    """By source, a small file's parameters."""
    found = {}
    for source in SOURCES:
        kind = "detector" if source.name in _DETECTORS else "segmentor"
        found[source.name] = convert_back(models[kind].state_dict(), source).state
    return found


def write(state, kind: str, path: str) -> str:
    """A file as code bases write them."""
    content = {"state_dict": state, "meta": {"CLASSES": ("a", "b"), "epoch": 3}}
    path = f"{path}.{ {'arrays': 'pkl', 'safetensors': 'safetensors'}.get(kind, 'pth') }"
    if kind == "arrays":
        with open(path, "wb") as file:
            pickle.dump({key: value.numpy() for key, value in state.items()}, file, protocol=2)
    elif kind == "safetensors":
        save_file({k: v.contiguous().clone() for k, v in state.items()}, path, {"format": "pt"})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def small(state) -> dict:
    """With a few numbers of each tensor: damage then meets names as often as numbers."""
    return {k: v[tuple(slice(0, 2) for _ in v.shape)].clone() for k, v in state.items()}


@pytest.mark.parametrize("kind", ["zip", "legacy", "arrays", "safetensors"])
@pytest.mark.parametrize("source", NAMES)
def test_damaged_files_are_refused_or_read_as_they_were(source, kind, public, tmp_path):
    state = small(public[source])
    path = write(state, kind, str(tmp_path / "w"))
    with open(path, "rb") as file:
        content = file.read()
    for name, changed in damaged(content, 4, f"{source} {kind}"):
        with open(path, "wb") as file:
            file.write(changed)
        found = outcome(lambda: read_weights(path), path, name)
        if found is not None and kind == "zip":  # the others have no checksum
            assert list(found.state) == list(state), name
            for key, value in state.items():
                assert torch.equal(found.state[key], value), f"{name}: {key}"


@pytest.mark.parametrize("source", ["mmseg", "dnl-det", "paddleseg-dnl", "detectron2"])
def test_conversion_writes_whole_files_or_none(source, public, tmp_path):
    path = write(public[source], "arrays", str(tmp_path / "w"))
    with open(path, "rb") as file:
        content = file.read()
    out = str(tmp_path / "out.pth")
    for name, changed in damaged(content, 3, f"convert {source}"):
        with open(path, "wb") as file:
            file.write(changed)
        said = outcome(lambda: convert_file(path, out), path, name)
        assert os.path.exists(out) == (said is not None), name
        if said is not None:
            read_weights(out)
            os.remove(out)
        assert os.listdir(tmp_path) == [os.path.basename(path)], name


def test_damaged_files_are_not_loaded_into_a_model(models, public, tmp_path):
    path = write(public["mmseg"], "legacy", str(tmp_path / "w"))
    with open(path, "rb") as file:
        content = file.read()
    for name, changed in damaged(content, 14, "load"):
        with open(path, "wb") as file:
            file.write(changed)
        checkpointer = Checkpointer(models["segmentor"])
        outcome(lambda c=checkpointer: c.resume_or_load(path), path, name)


_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_tensors = st.builds(
    torch.zeros, st.lists(st.integers(0, 3), max_size=4), dtype=st.sampled_from(
        [torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.complex64]
    )
)  # fmt: skip
_names = st.sampled_from(
    ["model", "state_dict", "meta", "input_format", "CLASSES", "PALETTE", "config_dict",
     "backbone.conv1.weight", "module.a.bias", "decode_head.conv_seg.weight", "__author__",
     "matching_heuristics", "UnpackBigParamInfor@@", "channel_order", "mean", "std"]
) | st.text(max_size=8)  # fmt: skip
_contents = st.recursive(
    _plain | _tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60 * TIMES, deadline=None, derandomize=True, database=None)
@given(content=st.dictionaries(_names, _contents, max_size=5))
def test_any_structure_is_read_or_refused(content, models, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("any") / "w.pth")
    torch.save(content, path)
    outcome(lambda: read_weights(path), path, repr(content)[:500])
    out = os.path.join(os.path.dirname(path), "out.pth")
    outcome(lambda: convert_file(path, out), path, repr(content)[:500])
    checkpointer = Checkpointer(models["segmentor"])
    outcome(lambda: checkpointer.resume_or_load(path), path, repr(content)[:500])


@settings(max_examples=25 * TIMES, deadline=None, derandomize=True, database=None)
@example(rest={}, note={})  # whose message once did not name the file
@given(rest=st.dictionaries(_names, _contents, max_size=4), note=_contents)
def test_anything_beside_the_weights_is_read_or_refused(
    rest, note, models, public, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("beside")
    path, out = str(folder / "w.pth"), str(folder / "out.pth")
    torch.save({**rest, "input_format": note, "state_dict": public["mmseg"]}, path)
    outcome(lambda: convert_file(path, out), path, repr((rest, note))[:500])
    checkpointer = Checkpointer(models["segmentor"])
    outcome(lambda: checkpointer.resume_or_load(path), path, repr((rest, note))[:500])
