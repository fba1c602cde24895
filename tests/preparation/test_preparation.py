"""What all preparations do, on miniatures: complete, repeat, go on, report what is wrong."""

import errno
import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.preparation import label_conversion as conversion
from dnl_d2.preparation import prepare_dataset
from tests.miniatures import BUILDERS
from tests.pictures import truncate

VOC, CONTEXT = "VOCdevkit/VOC2012", "VOCdevkit/VOC2010"
CITY = "cityscapes/gtFine/train/aachen/aachen_000001_000019_gtFine"
ADE = "ADEChallengeData2016"

# Dataset -> number of labels, one of its sources, and the label made from it.
CASES = {
    "ade20k": (
        5,
        f"{ADE}/annotations/training/ADE_train_00000002.png",
        f"{ADE}/annotations_detectron2/training/ADE_train_00000002.png",
    ),
    "cityscapes": (6, f"{CITY}_labelIds.png", f"{CITY}_labelTrainIds.png"),
    "pascal_context": (
        10,
        f"{CONTEXT}/trainval/2008_000001.mat",
        f"{CONTEXT}/SegmentationClassContext/2008_000001.png",
    ),
    "voc": (
        2,
        "benchmark_RELEASE/dataset/cls/2008_000001.mat",
        f"{VOC}/SegmentationClassAug/2008_000001.png",
    ),
}


class Case(NamedTuple):
    """A miniature before preparation, and the label to be made of one of its pictures."""

    name: str
    root: Path
    count: int
    source: Path
    output: Path
    picture: str
    label: np.ndarray

    def prepare(self):
        return prepare_dataset(self.name, root=str(self.root), workers=2)

    def assert_right(self):
        made = np.asarray(Image.open(self.output))
        np.testing.assert_array_equal(made, self.label)
        assert made.dtype == np.uint8

    def temporary_files(self):
        return [path for path in self.root.rglob("*") if path.name.endswith(".unfinished")]


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    root = tmp_path / "datasets"
    count, source, output = CASES[request.param]
    picture = Path(source).stem.removesuffix("_gtFine_labelIds")
    label = BUILDERS[request.param](root)[picture]
    return Case(request.param, root, count, root / source, root / output, picture, label)


def test_labels_are_right_and_a_second_run_writes_nothing(case, monkeypatch):
    report = case.prepare()
    assert f"{case.name}: {case.count} labels written, 0 were there already" in report
    assert "it seems incomplete" in report  # than the published dataset, which is no failure
    case.assert_right()
    assert not case.temporary_files()
    before = {path: path.stat().st_mtime_ns for path in case.root.rglob("*.*")}  # lists as well
    monkeypatch.setattr("dnl_d2.files.open", lambda *_: pytest.fail("written"), raising=False)
    assert f"0 labels written, {case.count} were there already" in case.prepare()
    assert before == {path: path.stat().st_mtime_ns for path in case.root.rglob("*.*")}


def test_what_a_killed_run_left_is_not_taken_for_done(case):
    case.prepare()
    truncate(str(case.output))
    leftover = case.output.with_name("killed.png.1-1.unfinished")
    leftover.write_bytes(b"half")
    assert f"1 labels written, {case.count - 1} were there already" in case.prepare()
    case.assert_right()
    assert not leftover.exists()


def test_a_label_of_other_values_is_made_again(case):
    case.prepare()
    Image.fromarray(np.full(case.label.shape, 200, np.uint8)).save(case.output)
    assert "1 labels written" in case.prepare()
    case.assert_right()


@pytest.mark.parametrize("content", ["half", b"", b"neither picture nor matrix" * 20])
def test_one_broken_file_is_named_and_the_others_are_prepared(case, content, capsys):
    sound = case.source.read_bytes()
    truncate(str(case.source)) if content == "half" else case.source.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        case.prepare()
    message = str(caught.value)
    assert f"label {case.source} cannot be read" in message and "\n" not in message
    assert "all else is done" in message and "problem: " in capsys.readouterr().out
    siblings = [path for path in case.output.parent.iterdir() if path.suffix == ".png"]
    assert siblings and not case.output.exists()
    case.source.write_bytes(sound)
    written = 2 if case.name == "pascal_context" else 1  # 60 classes and 59
    assert f"{written} labels written" in case.prepare()
    case.assert_right()


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(case, monkeypatch):
    calls = []
    room = 2 if case.name == "pascal_context" else 1  # which notes its source first

    class Full(io.FileIO):
        def write(self, content):
            if len(calls) == room:
                super().write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            calls.append(len(content))
            return super().write(content)

    with monkeypatch.context() as patch:
        patch.setattr("dnl_d2.files.open", Full, raising=False)
        with pytest.raises(UsageError, match=r"cannot be written \(no space left on the disk"):
            case.prepare()
    assert not case.temporary_files()
    assert f"{case.count - 1} labels written, 1 were there already" in case.prepare()
    case.assert_right()


def test_interrupted_it_goes_on_from_there(case, monkeypatch):
    def interrupted(futures, **_):
        yield next(iter(futures))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "tqdm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            case.prepare()
    assert not case.temporary_files()
    report = case.prepare()
    done = int(report.split(" were there already")[0].split()[-1])
    assert 1 <= done <= case.count and f"{case.count - done} labels written" in report
    case.assert_right()


def test_an_output_that_cannot_be_written_is_named(case):
    case.output.mkdir(parents=True)
    with pytest.raises(UsageError, match=rf"{case.output}: cannot be written \("):
        case.prepare()
    assert not case.temporary_files()


@pytest.mark.parametrize("name", CASES)
def test_a_missing_folder_is_named_with_what_is_expected(name, tmp_path):
    with pytest.raises(UsageError, match=r"folder .* does not exist: expected .* unpacks"):
        prepare_dataset(name, root=str(tmp_path), workers=2)
    with pytest.raises(UsageError, match=r"folder .*nowhere does not exist.*--root"):
        prepare_dataset(name, root=str(tmp_path / "nowhere"), workers=2)


def test_a_source_that_is_lacking_is_a_problem_and_the_others_are_prepared(case):
    case.source.unlink()
    for other in case.source.parent.glob(f"{case.picture}*polygons.json"):
        other.unlink()
    lacking = rf"1 of \d .* \(only partly unpacked\?\): .*{case.picture}"
    with pytest.raises(UsageError, match=lacking):
        case.prepare()
    assert list(case.output.parent.glob("*.png")) and not case.output.exists()


def test_an_image_that_is_lacking_is_a_problem(case):
    (image,) = (
        path
        for path in case.root.rglob(f"{case.picture}*")
        if path.suffix == ".jpg" or path.stem.endswith("_leftImg8bit")
    )
    image.unlink()
    with pytest.raises(UsageError, match=rf"1 of \d .* have no image.*: .*{case.picture}"):
        case.prepare()


def test_endings_may_be_in_capitals(case):
    for path in [case.source, *case.root.rglob("*.jpg")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert f"{case.count} labels written" in case.prepare()
    case.assert_right()
