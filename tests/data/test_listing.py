"""Listing folders and pairing what they hold."""

import pytest

from dnl_d2.data.listing import (
    count_and_name,
    find_files,
    find_files_by_city,
    list_folder,
    read_lines,
    require_all,
    stems_and_files,
)
from dnl_d2.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "a.jpeg", ".c.png", "d.txt", "ulm/e_x.png", "bonn/f_x.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return str(tmp_path)


def test_files_are_found_by_their_endings(folder):
    found = stems_and_files(folder, [".jpg", ".jpeg", ".png"])
    assert found == [(name[0], f"{folder}/{name}") for name in ("a.PNG", "a.jpeg", "b.jpg")]
    assert find_files(folder, ".png") == {"a": f"{folder}/a.PNG"}
    assert find_files_by_city(folder, "_x.png") == {
        "bonn/f": f"{folder}/bonn/f_x.png",
        "ulm/e": f"{folder}/ulm/e_x.png",
    }
    assert ".c.png" in list_folder(folder)


def test_a_missing_folder_holds_nothing(folder):
    missing = f"{folder}/missing"
    assert list_folder(missing) == [] and find_files(missing, ".png") == {}
    assert find_files_by_city(missing, ".png") == {} and list_folder(f"{folder}/d.txt") == []


def test_the_same_letter_in_two_normal_forms_is_one_name(tmp_path):
    composed, decomposed = "b\u00e9", "be\u0301"
    for name in (f"images/{decomposed}.png", f"labels/{composed}.png"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(b"")
    images, labels = (find_files(str(tmp_path / f), ".png") for f in ("images", "labels"))
    assert list(images) == list(labels) == [composed]
    assert images[composed] == f"{tmp_path}/images/{decomposed}.png"


def test_lines_of_every_editor(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf2007_1\r\n 2007_2 \r\n\r\nb\xc3\xa9\r\n")
    assert read_lines(str(path)) == ["2007_1", "2007_2", "", "b\u00e9"]


def test_what_is_lacking_is_counted_and_named():
    assert count_and_name("ab", 5, "things are gone") == "2 of 5 things are gone: a, b"
    require_all("ab", {"b", "a", "c"}, "things are gone", "look")
    assert count_and_name(["a\nb"], 1, "is gone") == "1 of 1 is gone: a\\nb"
    with pytest.raises(UsageError, match=r"^4 of 5 things are gone: a, b, d, \.\.\.; look$"):
        require_all("abcde", {"c"}, "things are gone", "look")


def test_very_long_names_are_cut():
    told = count_and_name(["\0" * 5000, "b"], 3, "stems have no file")
    assert told.startswith("2 of 3 stems have no file: \\x00") and len(told) < 400
