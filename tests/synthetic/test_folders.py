"""What both generated datasets promise about their files and folders."""

import errno
import itertools
import os

import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.synthetic import drawing, generate_dataset, generate_instances
from dnl_d2.synthetic.folders import toss

SMALL = {"train": 3, "val": 2, "size": (64, 96)}
# Generator -> number of files: pictures, labels or annotations, and the one of parameters.
FILES = {generate_dataset: 5 + 5 + 1, generate_instances: 5 + 2 + 1}

every_kind = pytest.mark.parametrize("generate", FILES)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.*"))}


@every_kind
def test_same_parameters_give_the_same_files(generate, tmp_path):
    for folder in "ab":
        generate(str(tmp_path / folder), **SMALL, seed=5)
    generate(str(tmp_path / "c"), **SMALL, seed=6)
    first, second, other = (contents(tmp_path / folder) for folder in "abc")
    assert first == second and len(first) == FILES[generate]
    assert first.keys() == other.keys() and first["train/00000.png"] != other["train/00000.png"]


@every_kind
def test_a_picture_does_not_depend_on_the_count(generate, tmp_path):
    generate(str(tmp_path / "few"), train=1, val=1, size=64)
    generate(str(tmp_path / "more"), train=3, val=2, size=64)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    pictures = [name for name in few if name.endswith(".png")]
    assert [few[name] for name in pictures] == [more[name] for name in pictures]
    assert few["train/00000.png"] != few["val/00000.png"]
    assert more["train/00000.png"] != more["train/00001.png"]


@pytest.mark.parametrize(
    ("generate", "change"), [(generate_dataset, {"val": 3}), (generate_instances, {"couples": 1})]
)
def test_complete_data_is_reused(generate, change, tmp_path, monkeypatch):
    root = tmp_path / "g"
    generate(str(root), **SMALL)
    complete = contents(root)

    def fail(*args, **kwargs):
        raise AssertionError("drew again")

    monkeypatch.setattr(drawing, "draw_layout", fail)
    generate(str(root), **SMALL)
    with pytest.raises(AssertionError, match="drew again"):
        generate(str(root), **SMALL | change)
    # The failure left the old data alone.
    assert contents(root) == complete and os.listdir(tmp_path) == ["g"]


@every_kind
def test_other_or_incomplete_data_is_replaced(generate, tmp_path):
    root = tmp_path / "g"
    generate(str(root), **SMALL)
    complete = contents(root)
    for name in complete.keys() - {"generated.json"}:
        (root / name).unlink()
        generate(str(root), **SMALL)
        assert contents(root) == complete
    (other,) = FILES.keys() - {generate}  # the other dataset of the same numbers
    for another, numbers in ((generate, SMALL | {"train": 1}), (other, SMALL)):
        fresh = tmp_path / another.__name__
        another(str(fresh), **numbers)
        another(str(root), **numbers)
        assert contents(root) == contents(fresh)
        assert sorted(os.listdir(root)) == sorted(os.listdir(fresh))


@every_kind
def test_a_folder_of_other_files_is_not_touched(generate, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match=r"photos holds files that are no generated dataset"):
        generate(str(tmp_path / "photos"), **SMALL)
    assert contents(tmp_path) == {"photos/holiday.jpg": b"dear"}
    (tmp_path / "empty").mkdir()
    generate(str(tmp_path / "empty"), **SMALL)


@every_kind
def test_a_disk_without_room_is_named(generate, tmp_path, monkeypatch):
    generate(str(tmp_path / "g"), **SMALL)
    before = contents(tmp_path)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UsageError, match=r"g: cannot be written \(No space left on device\)"):
        generate(str(tmp_path / "g"), **SMALL, seed=1)
    assert contents(tmp_path) == before and os.listdir(tmp_path) == ["g"]


def test_answers_are_balanced_exactly():
    """Four pictures hold both beacons twice and, of each colour, both discs, either and none."""
    for start in (0, 4, 8):
        answers = [toss((2, 1), index, couples=4) for index in range(start, start + 4)]
        kinds, presents = zip(*answers, strict=True)
        assert sorted(kinds) == [0, 0, 1, 1]
        for colour in zip(*presents, strict=True):
            assert sorted(colour) == list(itertools.product((False, True), repeat=2))


WRONG = [{"size": 63}, {"size": (64, 20)}, {"train": 0}, {"val": -1}, {"seed": -1}, {"noise": -1.0}]


@pytest.mark.parametrize(
    ("generate", "wrong"),
    [*itertools.product(FILES, WRONG), (generate_instances, {"couples": 5})],
)
def test_bad_parameters(generate, wrong, tmp_path):
    with pytest.raises(UsageError, match="generated dataset: "):
        generate(str(tmp_path / "g"), **SMALL | wrong)
    assert not os.listdir(tmp_path)
