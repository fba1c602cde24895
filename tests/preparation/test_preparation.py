"""What all preparations do, on miniatures: complete, repeat, go on, report what is wrong."""

import errno
import io
import os

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

# Dataset -> number of labels, one of its sources, the picture's name, and the label made from it.
CASES = {
    "ade20k": (
        5,
        f"{ADE}/annotations/training/ADE_train_00000002.png",
        "ADE_train_00000002",
        f"{ADE}/annotations_detectron2/training/ADE_train_00000002.png",
    ),
    "cityscapes": (6, f"{CITY}_labelIds.png", "aachen_000001_000019", f"{CITY}_labelTrainIds.png"),
    "pascal_context": (
        10,
        f"{CONTEXT}/trainval/2008_000001.mat",
        "2008_000001",
        f"{CONTEXT}/SegmentationClassContext/2008_000001.png",
    ),
    "voc": (
        2,
        "benchmark_RELEASE/dataset/cls/2008_000001.mat",
        "2008_000001",
        f"{VOC}/SegmentationClassAug/2008_000001.png",
    ),
}
pytestmark = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def raw(tmp_path, name):
    """The miniature of ``name`` before preparation, and its true label maps."""
    root = tmp_path / "datasets"
    return root, BUILDERS[name](root)


def prepare(name, root):
    return prepare_dataset(name, root=str(root), workers=2)


def indices(path):
    return np.asarray(Image.open(path))


def temporary_files(root):
    return [path for path in root.rglob("*") if path.name.endswith(".unfinished")]


def test_labels_are_right_and_a_second_run_writes_nothing(name, raw, monkeypatch):
    root, truth = raw
    count, _, picture, output = CASES[name]
    report = prepare(name, root)
    assert f"{name}: {count} labels written, 0 were there already" in report
    assert "it seems incomplete" in report  # than the published dataset, which is no failure
    np.testing.assert_array_equal(indices(root / output), truth[picture])
    assert indices(root / output).dtype == np.uint8 and not temporary_files(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}  # lists as well
    monkeypatch.setattr("dnl_d2.files.open", lambda *_: pytest.fail("written"), raising=False)
    assert f"0 labels written, {count} were there already" in prepare(name, root)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}


def test_what_a_killed_run_left_is_not_taken_for_done(name, raw):
    root, truth = raw
    count, _, picture, output = CASES[name]
    prepare(name, root)
    truncate(str(root / output))
    leftover = (root / output).with_name("killed.png.1-1.unfinished")
    leftover.write_bytes(b"half")
    assert f"1 labels written, {count - 1} were there already" in prepare(name, root)
    np.testing.assert_array_equal(indices(root / output), truth[picture])
    assert not leftover.exists()


def test_a_label_of_other_values_is_made_again(name, raw):
    root, truth = raw
    _, _, picture, output = CASES[name]
    prepare(name, root)
    Image.fromarray(np.full(truth[picture].shape, 200, np.uint8)).save(root / output)
    assert "1 labels written" in prepare(name, root)
    np.testing.assert_array_equal(indices(root / output), truth[picture])


@pytest.mark.parametrize("content", ["half", b"", b"neither picture nor matrix" * 20])
def test_one_broken_file_is_named_and_the_others_are_prepared(name, raw, content, capsys):
    root, truth = raw
    _, source, picture, output = CASES[name]
    sound = (root / source).read_bytes()
    truncate(str(root / source)) if content == "half" else (root / source).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        prepare(name, root)
    message = str(caught.value)
    assert f"label {root / source} cannot be read" in message and "\n" not in message
    assert "all else is done" in message and "problem: " in capsys.readouterr().out
    siblings = [path for path in (root / output).parent.iterdir() if path.suffix == ".png"]
    assert siblings and not (root / output).exists()
    (root / source).write_bytes(sound)
    written = 2 if name == "pascal_context" else 1  # 60 classes and 59
    assert f"{written} labels written" in prepare(name, root)
    np.testing.assert_array_equal(indices(root / output), truth[picture])


def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(name, raw, monkeypatch):
    root, truth = raw
    count, _, picture, output = CASES[name]
    calls = []
    room = 2 if name == "pascal_context" else 1  # which notes its source first

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
            prepare(name, root)
    assert not temporary_files(root)
    assert f"{count - 1} labels written, 1 were there already" in prepare(name, root)
    np.testing.assert_array_equal(indices(root / output), truth[picture])


def test_interrupted_it_goes_on_from_there(name, raw, monkeypatch):
    root, truth = raw
    count, _, picture, output = CASES[name]

    def interrupted(futures, **_):
        yield next(iter(futures))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "tqdm", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(name, root)
    assert not temporary_files(root)
    report = prepare(name, root)
    done = int(report.split(" were there already")[0].split()[-1])
    assert 1 <= done <= count and f"{count - done} labels written" in report
    np.testing.assert_array_equal(indices(root / output), truth[picture])


def test_an_output_that_cannot_be_written_is_named(name, raw):
    root, _ = raw
    (root / CASES[name][3]).mkdir(parents=True)
    with pytest.raises(UsageError, match=rf"{CASES[name][3]}: cannot be written \("):
        prepare(name, root)
    assert not temporary_files(root)


def test_a_missing_folder_is_named_with_what_is_expected(name, tmp_path):
    with pytest.raises(UsageError, match=r"folder .* does not exist: expected .* unpacks"):
        prepare(name, tmp_path)
    with pytest.raises(UsageError, match=r"folder .*nowhere does not exist.*--root"):
        prepare(name, tmp_path / "nowhere")


def test_a_source_that_is_lacking_is_a_problem_and_the_others_are_prepared(name, raw):
    root, _ = raw
    _, source, picture, output = CASES[name]
    (root / source).unlink()
    for other in (root / source).parent.glob(f"{picture}*polygons.json"):
        other.unlink()
    with pytest.raises(UsageError, match=rf"1 of \d .* \(only partly unpacked\?\): .*{picture}"):
        prepare(name, root)
    assert list((root / output).parent.glob("*.png")) and not (root / output).exists()


def test_an_image_that_is_lacking_is_a_problem(name, raw):
    root, _ = raw
    picture = CASES[name][2]
    (image,) = (
        path
        for path in root.rglob(f"{picture}*")
        if path.suffix == ".jpg" or path.stem.endswith("_leftImg8bit")
    )
    image.unlink()
    with pytest.raises(UsageError, match=rf"1 of \d .* have no image.*: .*{picture}"):
        prepare(name, root)


def test_endings_may_be_in_capitals(name, raw):
    root, truth = raw
    count, source, picture, output = CASES[name]
    for path in [root / source, *root.rglob("*.jpg")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert f"{count} labels written" in prepare(name, root)
    np.testing.assert_array_equal(indices(root / output), truth[picture])
