"""What is particular to each dataset's preparation, and the command line."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.preparation import createTrainIdLabelImgs
from PIL import Image
from scipy.io import loadmat, savemat

from dnl_d2.data.datasets import pascal_context as context_classes
from dnl_d2.errors import UsageError
from dnl_d2.preparation import PREPARATIONS, pascal_context, prepare_dataset
from tests.miniatures import (
    BUILDERS,
    build_ade20k,
    build_cityscapes,
    build_pascal_context,
    build_voc,
)
from tests.pictures import truncate
from tests.processes import with_root

ADE = "ADEChallengeData2016"
VOC, SBD, CONTEXT = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset", "VOCdevkit/VOC2010"


def prepare(name, root):
    return prepare_dataset(name, root=str(root), workers=2)


def indices(path):
    return np.asarray(Image.open(path))


# Cityscapes


@pytest.mark.parametrize("source", ["labelIds", "polygons"])
def test_cityscapes_equals_the_official_script(source, tmp_path, monkeypatch, capsys):
    build_cityscapes(tmp_path, size=(70, 130))
    copy = tmp_path / "official"
    shutil.copytree(tmp_path / "cityscapes", copy)
    monkeypatch.setenv("CITYSCAPES_DATASET", str(copy))
    createTrainIdLabelImgs.main()
    if source == "polygons":
        for path in tmp_path.glob("cityscapes/gtFine/*/*/*_labelIds.png"):
            path.unlink()
    prepare("cityscapes", tmp_path)
    expected = sorted(copy.glob("gtFine/*/*/*_labelTrainIds.png"))
    assert len(expected) == 6
    for path in expected:
        ours = indices(tmp_path / "cityscapes" / path.relative_to(copy))
        np.testing.assert_array_equal(ours, indices(path))
        assert 255 in ours and len(np.unique(ours)) > 3


def edit(path, change):
    """Has ``change`` alter what a JSON file holds."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def polygons(root) -> Path:
    """The only source of one label map, to be damaged."""
    (ids,) = root.glob("cityscapes/gtFine/val/munster/munster_000001*_labelIds.png")
    ids.unlink()
    return Path(str(ids).replace("labelIds.png", "polygons.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(imgWidth="wide"), "cannot be read"),
        (lambda content: content.pop("objects"), "cannot be read"),
        (lambda content: content["objects"].append({"label": "car"}), "cannot be read"),
        (
            lambda content: content["objects"].append({"label": "boat", "polygon": [[0, 0]] * 3}),
            "names the class 'boat'",
        ),
    ],
)
def test_cityscapes_polygons_of_another_form_are_named(change, message, tmp_path):
    build_cityscapes(tmp_path)
    edit(polygons(tmp_path), change)
    with pytest.raises(UsageError, match=rf"label .*munster_000001_.*polygons\.json {message}"):
        prepare("cityscapes", tmp_path)


def test_cityscapesscripts_missing_is_said(tmp_path, monkeypatch):
    build_cityscapes(tmp_path)
    monkeypatch.setitem(sys.modules, "cityscapesscripts.helpers.labels", None)
    with pytest.raises(UsageError, match=r"cityscapesScripts .* install it"):
        prepare("cityscapes", tmp_path)


def test_cityscapes_half_written_polygons_are_named(tmp_path):
    build_cityscapes(tmp_path)
    truncate(str(polygons(tmp_path)))
    with pytest.raises(UsageError, match=r"polygons\.json cannot be read"):
        prepare("cityscapes", tmp_path)
    assert len(list(tmp_path.glob("cityscapes/gtFine/*/*/*_labelTrainIds.png"))) == 5


def test_cityscapes_deleted_objects_are_not_drawn(tmp_path):
    truth = build_cityscapes(tmp_path)
    path = polygons(tmp_path)
    whole = [[0, 0], [95, 0], [95, 47], [0, 47]]
    note = {"label": "a note", "deleted": 1, "polygon": whole}
    edit(path, lambda content: content["objects"].append(note))
    prepare("cityscapes", tmp_path)
    made = indices(str(path).replace("polygons.json", "labelTrainIds.png"))
    np.testing.assert_array_equal(made, truth["munster_000001_000019"])


# ADE20K


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.full((40, 56), 151, np.uint8), r"holds the value 151, expected 0 \(other\) to 150"),
        (np.full((40, 56), 255, np.uint8), r"holds the value 255, expected 0 \(other\) to 150"),
        (np.full((40, 56), 1000, np.uint16), "holds the value 1000"),
        (np.zeros((40, 56, 3), np.uint8), r"holds colours \(mode RGB\), not class ids"),
    ],
)
def test_ade20k_of_another_encoding_is_named(label, message, tmp_path):
    build_ade20k(tmp_path)
    path = tmp_path / ADE / "annotations/validation/ADE_val_00000001.png"
    Image.fromarray(label).save(path)
    with pytest.raises(UsageError, match=rf"label {path} {message}"):
        prepare("ade20k", tmp_path)
    assert len(list(tmp_path.glob(f"{ADE}/annotations_detectron2/*/*.png"))) == 4


def test_ade20k_without_labels_is_an_error(tmp_path):
    build_ade20k(tmp_path, train=0, val=0)
    with pytest.raises(UsageError, match=r"annotations holds no \*/\*\.png: expected"):
        prepare("ade20k", tmp_path)


# VOC and SBD


def test_voc_takes_labels_of_sbd_only_where_voc_has_none(tmp_path):
    truth = build_voc(tmp_path)
    prepare("voc", tmp_path)
    made = {path.stem: indices(path) for path in tmp_path.glob(f"{VOC}/SegmentationClassAug/*")}
    assert set(made) == {"2008_000000", "2008_000001"}
    for name, label in made.items():
        np.testing.assert_array_equal(label, truth[name])
        theirs = loadmat(tmp_path / SBD / f"cls/{name}.mat")["GTcls"][0]["Segmentation"][0]
        np.testing.assert_array_equal(label, theirs)
    listed = (tmp_path / VOC / "ImageSets/Segmentation/trainaug.txt").read_text().split()
    # VOC's training pictures and SBD's own; not 2007_000002, which SBD has but VOC validates on.
    assert listed == ["2007_000000", "2007_000001", "2008_000000", "2008_000001"]


def test_voc_label_of_a_picture_in_no_list_wins_as_well(tmp_path):
    truth = build_voc(tmp_path)
    path = tmp_path / VOC / "SegmentationClass/2008_000000.png"
    Image.fromarray(truth["2008_000000"]).save(path)
    assert "1 labels written" in prepare("voc", tmp_path)
    assert not (tmp_path / VOC / "SegmentationClassAug/2008_000000.png").exists()


def test_voc_labels_are_palette_pictures_for_viewers(tmp_path):
    build_voc(tmp_path)
    prepare("voc", tmp_path)
    picture = Image.open(tmp_path / VOC / "SegmentationClassAug/2008_000000.png")
    assert picture.mode == "P"
    assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]


@pytest.mark.parametrize("place", ["VOCdevkit/benchmark_RELEASE", "VOCdevkit/VOCaug"])
def test_sbd_may_lie_in_other_places(place, tmp_path):
    build_voc(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "benchmark_RELEASE").rename(tmp_path / place)
    assert "2 labels written" in prepare("voc", tmp_path)


def test_voc_without_sbd_says_what_needs_it(tmp_path):
    build_voc(tmp_path)
    shutil.rmtree(tmp_path / "benchmark_RELEASE")
    with pytest.raises(UsageError, match=r"benchmark\.tgz .*only trainaug needs it"):
        prepare("voc", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTcls": {"Segmentation": np.full((4, 4), 21, np.uint8)}}, "holds the value 21"),
        ({"GTinst": {"Segmentation": np.ones((4, 4), np.uint8)}}, "no variable GTcls.Segmentation"),
        ({"GTcls": {"Boundaries": 1}}, "no variable GTcls.Segmentation"),
        ({"GTcls": np.ones((4, 4), np.uint8)}, "no variable GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.ones((4, 4, 3), np.uint8)}}, "expected a map of integers"),
        ({"GTcls": {"Segmentation": np.ones((4, 4))}}, "expected a map of integers"),
    ],
)
def test_sbd_labels_of_another_form_are_named(content, message, tmp_path):
    build_voc(tmp_path)
    path = tmp_path / SBD / "cls/2008_000001.mat"
    savemat(path, content)
    with pytest.raises(UsageError, match=rf"label {path}.*{message}"):
        prepare("voc", tmp_path)


@pytest.mark.parametrize("name", ["voc", "pascal_context"])
def test_scipy_missing_is_said_once(name, tmp_path, monkeypatch):
    BUILDERS[name](tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UsageError, match=r"^the labels are \*\.mat files: install scipy"):
        prepare(name, tmp_path)


# PASCAL Context


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


# The command line


def test_command_line(tmp_path, root):
    truth = build_ade20k(tmp_path)
    broken = tmp_path / ADE / "annotations/training/ADE_train_00000001.png"
    sound = broken.read_bytes()
    truncate(str(broken))
    command = [sys.executable, str(root / "tools/prepare_dataset.py"), "ade20k"]
    environment = with_root(root, DETECTRON2_DATASETS=str(tmp_path))
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert last.startswith(f"prepare_dataset.py: error: ade20k: label {broken} cannot be read")
    assert "4 labels written, 0 were there already" in ended.stdout
    broken.write_bytes(sound)
    environment.pop("DETECTRON2_DATASETS")
    command += ["--root", str(tmp_path), "--workers", "2"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "1 labels written, 4 were there already" in ended.stdout
    made = indices(tmp_path / ADE / "annotations_detectron2/training/ADE_train_00000001.png")
    np.testing.assert_array_equal(made, truth["ADE_train_00000001"])


def test_workers_must_be_positive(tmp_path):
    with pytest.raises(UsageError, match="--workers is 0"):
        prepare_dataset("voc", root=str(tmp_path), workers=0)


def test_every_preparation_has_a_miniature():
    assert set(PREPARATIONS) == set(BUILDERS)
