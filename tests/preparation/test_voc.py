"""Preparing VOC with the labels of SBD."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from dnl_d2.errors import UsageError
from tests.miniatures import (
    BUILDERS,
    build_voc,
)
from tests.preparation.formats import SBD, VOC, indices, prepare


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
