"""Preparing Cityscapes."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.preparation import createTrainIdLabelImgs

from dnl_d2.errors import UsageError
from tests.miniatures import (
    build_cityscapes,
)
from tests.pictures import truncate
from tests.preparation.formats import edit, indices, prepare


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
