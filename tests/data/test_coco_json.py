"""How files in COCO's form are read: as they are meant, or with a line that says what is wrong."""

import copy
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.data import register_coco_dataset
from dnl_d2.data.datasets.coco_json import Odd, read_coco_json, readable_copy
from dnl_d2.errors import UsageError
from tests.data.coco_form import NAME, SQUARE, content
from tests.data.odd_coco_files import ODD, sound
from tests.evaluation.coco_data import encode


@pytest.fixture
def load(write_json):
    """Returns ``load(content)``: what a detector gets to see."""

    def run(form):
        path = write_json(form)
        register_coco_dataset(NAME, images="/data", json=path)
        return DatasetCatalog.get(NAME)

    return run


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_odd_files_are_learned_as_meant(load, change):
    form = sound()
    expected = load(form)
    classes = len(MetadataCatalog.get(NAME).thing_classes)
    change(form)
    found = load(form)
    names = MetadataCatalog.get(NAME).thing_classes
    assert len(names) == classes == 2 and all(isinstance(name, str) for name in names)
    for records in (expected, found):
        records.sort(key=lambda record: os.path.basename(record["file_name"]))
        for record in records:
            del record["image_id"], record["file_name"]
            for entry in record["annotations"]:
                entry["iscrowd"] = int(entry.get("iscrowd", 0))
                entry["bbox"] = [float(value) for value in entry["bbox"]]
                shape = entry.pop("segmentation")
                assert shape
    assert found == expected


def test_a_sound_file_is_not_copied(write_json, caplog):
    path = write_json(content())
    assert read_coco_json(path)[1] == {}
    assert readable_copy(path) == path
    os.utime(path, (1, 1))  # nothing of it is known any more
    assert readable_copy(path) == path and not caplog.text


def test_a_copy_is_made_once_and_the_log_says_why(write_json, caplog):
    data = content()
    data["annotations"][2]["iscrowd"] = None
    path = write_json(data)
    copied = readable_copy(path)
    assert copied == readable_copy(path) != path
    told = f"{path} is taken as it is meant: 'iscrowd' is null, taken as 0 (annotation 3)"
    assert caplog.text.count(told) == 1
    entries = json.loads(Path(copied).read_text())["annotations"]
    assert [entry.get("iscrowd") for entry in entries] == [0] * 6
    assert entries[0]["segmentation"] == [SQUARE]
    with open(path, "w") as file:
        json.dump(content(), file)
    assert readable_copy(path) == path  # a file that has changed is read anew


def test_of_what_is_written_otherwise_the_log_says_where(write_json):
    for values, told in (
        ({"iscrowd": "0"}, "annotation 1 has the iscrowd '0'"),
        ({"segmentation": [[str(value) for value in SQUARE]]}, "annotation 1 has the segm.*]"),
    ):
        _, notes = read_coco_json(write_json(changed("annotations", **values)))
        assert list(notes) == [Odd.WRITING]
        assert re.fullmatch(told, notes[Odd.WRITING])


def test_the_metadata_name_what_was_read(load):
    data = content()
    data["images"][0]["id"] = "one"
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 1]
    records = load(data)
    path = MetadataCatalog.get(NAME).json_file
    images = json.loads(Path(path).read_text())["images"]
    assert {r["image_id"] for r in records} == {i["id"] for i in images} == {1, 2, 3}
    assert images[0]["dnl_d2_source_id"] == "one" and images[0]["id"] == 3
    load(content())
    assert MetadataCatalog.get(NAME).json_file != path


def changed(key, **values):
    data = content()
    data[key][0].update(values)
    return data


REFUSED = {
    "a fraction": (changed("images", width=59.5), "'images' has the width 59.5 .*: it is a whole"),
    "no size": (changed("images", width=0), "the width 0 .Expected int >= 1.*: it is"),
    "null": (changed("images", height=None), "has the height None .*: it is"),
    "huge": (changed("images", height=2**19, width=2**19), r"more than 2\*\*30 pixels"),
    "no name": (changed("categories", name=None), "'categories' has the name None .*: it is"),
    "a list as id": (changed("annotations", category_id=[3]), r"the category_id \[3\] .*: it is"),
    "a list as own id": (changed("annotations", id=[1]), r"annotation \[1\] has the id \[1\]"),
    "a number too far": (changed("annotations", bbox=[1e9, 0, 5, 5]), "annotation 1 has the bbox"),
    "an area": (changed("annotations", area="big"), "annotation 1 has the area 'big' .*: it is"),
    "a crowd of 2": (changed("annotations", iscrowd=2), "the iscrowd 2 .*: it is 0, or 1"),
    "two numbers": (changed("annotations", keypoints=[1, 2]), "2 numbers in 'keypoints'"),
    "texts": (changed("annotations", keypoints=["a"]), "the keypoints .*'a'. .*: it is a"),
    "other names": ({**content(), "images": {"1": {}}}, "not in COCO's form: 'images' is no list"),
    "no entries": ({**content(), "images": [7]}, "number 0 of 'images' is 7, no mapping"),
    "text": ("hello", "cannot be read as JSON"),
    "deep": ("[" * 100_000, "cannot be read as JSON|'images'"),
    "deep inside": ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("data, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_told(write_json, data, message):
    with pytest.raises(UsageError, match=message) as error:
        read_coco_json(write_json(data))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


STRANGE = (
    None, True, -1, 0, 2, 1.5, 1e400, -1e300, 10**40, float("nan"), "", "7", "x", "nan", [], {},
    [[]], [None], ["a"], [1, 2, 3, 4], {"size": [40, 60], "counts": "x"}, [[[[[]]]]],
)  # fmt: skip


def test_strange_values_are_read_or_told(write_json):
    """Each value in each place, and some in pairs: nothing but a UsageError, and a whole copy."""
    rng = random.Random(0)
    rich = content()
    rich["annotations"][1].update(keypoints=[1, 2, 2], num_keypoints=1)
    rich["annotations"][2]["segmentation"] = encode(np.ones((40, 60)))
    places = [(key, n, name) for key in rich for n in (0, 1, 2) if n < len(rich[key])
              for name in rich[key][n]]  # fmt: skip
    cases = [[(place, value)] for place in places for value in STRANGE]
    cases += [[(rng.choice(places), rng.choice(STRANGE)) for _ in (0, 1)] for _ in range(100)]
    outcomes = {True: 0, False: 0}
    for case in cases:
        data = copy.deepcopy(rich)
        for (key, number, name), value in case:
            data[key][number][name] = copy.deepcopy(value)
        path = write_json(data)
        try:
            read_coco_json(path)
        except UsageError as error:
            assert "\n" not in str(error), case
            outcomes[False] += 1
            continue
        register_coco_dataset(NAME, images="", json=path)
        DatasetCatalog.get(NAME)
        outcomes[True] += 1
    assert min(outcomes.values()) > 100, outcomes
