"""Preparing PASCAL Context, of either form."""

import importlib.util
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dnl_d2.data.datasets import pascal_context as context_classes
from dnl_d2.errors import UsageError
from dnl_d2.preparation import pascal_context
from tests.miniatures import (
    build_pascal_context,
)
from tests.pictures import truncate
from tests.preparation.formats import CONTEXT, edit, indices, prepare


@pytest.fixture
def merged(tmp_path) -> Path:
    """The annotation of a miniature that has it as JSON."""
    build_pascal_context(tmp_path, form="json")
    return tmp_path / CONTEXT / "trainval_merged.json"


@pytest.mark.parametrize("form", ["mat", "json"])
def test_context_of_either_form_gives_the_same(form, tmp_path):
    truth = build_pascal_context(tmp_path, form=form)
    assert "10 labels written" in prepare("pascal_context", tmp_path)
    base = tmp_path / CONTEXT
    for name, label in truth.items():
        np.testing.assert_array_equal(indices(base / f"SegmentationClassContext/{name}.png"), label)
        without = np.where(label == 0, 255, label.astype(int) - 1)
        made = indices(base / f"SegmentationClassContext59/{name}.png")
        np.testing.assert_array_equal(made, without)
    lists = base / "ImageSets/SegmentationContext"
    assert (lists / "train.txt").read_text().split() == sorted(truth)[:3]
    assert (lists / "val.txt").read_text().split() == sorted(truth)[3:]


def test_context_numbers_are_those_of_the_public_converter(monkeypatch):
    monkeypatch.setitem(sys.modules, "detail", types.SimpleNamespace(Detail=None))
    package = importlib.util.find_spec("mmseg").submodule_search_locations[0]
    path = os.path.join(package, ".mim/tools/dataset_converters/pascal_context.py")
    spec = importlib.util.spec_from_file_location("converter", path)
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    theirs = dict(zip(converter._mapping.tolist(), converter._key.tolist(), strict=True))
    table = pascal_context._conversion(pascal_context.draw_masks).table
    assert {old: int(new) for old, new in enumerate(table) if new or not old} == theirs
    # The 459 classes are numbered in alphabetical order, so the names must be as well.
    assert list(context_classes.CLASSES[1:]) == sorted(context_classes.CLASSES[1:])


def test_context_goes_on_from_labels_of_60_classes_alone(tmp_path):
    truth = build_pascal_context(tmp_path)
    prepare("pascal_context", tmp_path)
    shutil.rmtree(tmp_path / CONTEXT / "trainval")
    shutil.rmtree(tmp_path / CONTEXT / "SegmentationClassContext59")
    assert "5 labels written, 0 were there" in prepare("pascal_context", tmp_path)
    made = indices(tmp_path / CONTEXT / "SegmentationClassContext59/2008_000003.png")
    np.testing.assert_array_equal(made, truth["2008_000003"] - np.uint8(1))


def test_context_names_labels_of_60_classes_that_are_lacking(tmp_path):
    build_pascal_context(tmp_path)
    prepare("pascal_context", tmp_path)
    shutil.rmtree(tmp_path / CONTEXT / "trainval")
    (tmp_path / CONTEXT / "SegmentationClassContext/2008_000004.png").unlink()
    with pytest.raises(
        UsageError, match=r"1 of 2 pictures of .*val\.txt have no label .*2008_000004"
    ):
        prepare("pascal_context", tmp_path)
    (tmp_path / CONTEXT / "ImageSets/SegmentationContext/val.txt").unlink()
    with pytest.raises(UsageError, match=r"list .*val\.txt does not exist"):
        prepare("pascal_context", tmp_path)


def test_context_without_either_form_is_an_error(tmp_path):
    build_pascal_context(tmp_path)
    shutil.rmtree(tmp_path / CONTEXT / "trainval")
    with pytest.raises(UsageError, match=r"neither trainval_merged\.json nor trainval/\*\.mat"):
        prepare("pascal_context", tmp_path)


def test_context_label_map_beyond_the_459_classes_is_named(tmp_path):
    build_pascal_context(tmp_path)
    path = tmp_path / CONTEXT / "trainval/2008_000004.mat"
    savemat(path, {"LabelMap": np.full((40, 56), 460, np.uint16)})
    with pytest.raises(UsageError, match=rf"label {path} holds the value 460, expected 0 .* 459"):
        prepare("pascal_context", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("annos_segmentation"), "no key 'annos_segmentation'"),
        (lambda content: content["images"][0].pop("phase"), "no key 'phase'"),
    ],
)
def test_context_json_of_another_form_is_named(change, message, tmp_path, merged):
    edit(merged, change)
    with pytest.raises(UsageError, match=rf"{merged} cannot be read \({message}\): download"):
        prepare("pascal_context", tmp_path)


@pytest.mark.parametrize("key", ["images", "annos_segmentation"])
def test_context_json_without_pictures_is_no_success(key, tmp_path, merged):
    edit(merged, lambda content: content[key].clear())
    with pytest.raises(UsageError, match=rf"{merged} has no annotated picture of train: download"):
        prepare("pascal_context", tmp_path)
    assert not (tmp_path / CONTEXT / "ImageSets/SegmentationContext").exists()


@pytest.mark.parametrize("first", ["mat", "json"])
def test_context_of_both_forms_is_not_mixed(first, tmp_path):
    build_pascal_context(tmp_path, form="mat")
    build_pascal_context(tmp_path, form="json")
    base = tmp_path / CONTEXT
    merged, aside = base / "trainval_merged.json", base / "aside.json"
    made, other = "trainval_merged.json", "trainval"
    if first == "mat":
        made, other = other, made
        merged.rename(aside)
    prepare("pascal_context", tmp_path)
    (aside if first == "mat" else merged).rename(merged if first == "mat" else aside)
    with pytest.raises(
        UsageError, match=rf"made from {made}, not from {other}, .* delete the fold"
    ):
        prepare("pascal_context", tmp_path)
    for folder in (*context_classes.LABELS.values(), context_classes.LISTS):  # as it says
        shutil.rmtree(base / folder)
    assert "10 labels written" in prepare("pascal_context", tmp_path)


def test_context_half_written_json_is_named(tmp_path, merged):
    truncate(str(merged))
    with pytest.raises(UsageError, match=rf"{merged} cannot be read \(.*\): download"):
        prepare("pascal_context", tmp_path)


@pytest.mark.parametrize(
    "mask", [{"size": [3, 3], "counts": "09"}, {"size": [40, 56]}, [[0, 0, 1, 1]], {}]
)
def test_context_mask_that_cannot_be_drawn_is_named(mask, tmp_path, merged):
    edit(merged, lambda content: content["annos_segmentation"][0].update(segmentation=mask))
    with pytest.raises(UsageError, match=r"label of 2008_000000\.jpg .* cannot be drawn"):
        prepare("pascal_context", tmp_path)
    assert len(list(tmp_path.glob(f"{CONTEXT}/SegmentationClassContext/*.png"))) == 4
