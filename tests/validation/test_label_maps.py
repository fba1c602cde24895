import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dnl_d2.errors import UsageError
from dnl_d2.validation.label_maps import check_sem_seg_dataset, judge_training_labels
from tests.pictures import truncate


@pytest.fixture
def records(save, rng):
    made = []
    for index in range(6):
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        label = rng.integers(0, 3, (20, 30), dtype=np.uint8)
        label[0, :5], label[0, 5:9] = 7, 255
        made.append(
            {
                "file_name": save(f"image{index}.png", image),
                "sem_seg_file_name": save(f"label{index}.png", label),
            }
        )
    return made


def check(records, **options):
    arguments = {"num_classes": 3, "ignore_label": 7, "name": "streets", **options}
    return check_sem_seg_dataset(records, **arguments)


def spoil(record, save, value):
    label = np.zeros((20, 30), np.uint8)
    label[3, 4] = value
    save(record["sem_seg_file_name"].rsplit("/", 1)[1], label)


def test_sound_dataset_passes_in_silence(records, caplog):
    with caplog.at_level(logging.INFO):
        check(records)
    assert not caplog.records


def test_first_wrong_value_is_named_and_the_others_counted(records, save):
    for index, value in ((2, 5), (4, 200), (5, 3)):
        spoil(records[index], save, value)
    with pytest.raises(UsageError) as caught:
        check(records)
    message = str(caught.value)
    assert re.match(r"dataset streets: label .*label2\.png holds the value 5", message)
    assert message.endswith("(and 2 more to correct)") and "\n" not in message


def test_ignore_label_counts_where_it_is_not_the_datasets(records):
    with pytest.raises(UsageError, match=r"value 7"):
        check(records, ignore_label=255)


def test_size_mismatch_is_found_by_header(records, save):
    save("label3.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(UsageError, match=r"image3\.png is 20x30 .*label3\.png is 20x31"):
        check(records)


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
def test_truncated_and_missing_files_are_named(records, key):
    truncate(records[1][key])
    with pytest.raises(UsageError, match=rf"{re.escape(records[1][key])} cannot be read"):
        check(records)
    records[1][key] = "gone.png"
    with pytest.raises(UsageError, match=r"gone\.png does not exist"):
        check(records)


def test_colour_label_and_absent_label_are_named(records, save):
    save("label0.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(UsageError, match=r"label0\.png holds colours"):
        check(records)
    del records[0]["sem_seg_file_name"]
    with pytest.raises(UsageError, match=r"image0\.png has no label"):
        check(records)


def test_one_broken_pair_is_counted_once(records, save):
    Path(records[0]["sem_seg_file_name"]).write_bytes(b"text")
    with pytest.raises(UsageError, match=r"label0\.png cannot be read") as caught:
        check(records)
    assert "more to correct" not in str(caught.value)


def test_empty_dataset():
    with pytest.raises(UsageError, match="dataset streets is empty"):
        check([])


def test_large_datasets_are_sampled_evenly_and_say_so(records, save, caplog):
    spoil(records[1], save, 9)  # sampled are 0, 2 and 4
    with caplog.at_level(logging.INFO):
        check(records, max_label_files=3)
    assert "contents of 3 labels and 6 images" in caplog.text
    spoil(records[4], save, 9)
    with pytest.raises(UsageError, match=r"label4\.png"):
        check(records, max_label_files=3)


def test_sizes_are_checked_beyond_the_sample(records, save):
    save("label5.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(UsageError, match=r"label5\.png is 2x2"):
        check(records, max_label_files=1, max_image_files=1)


def relabelled(records, save, *values):
    for record in records:
        label = np.full((20, 30), values[0], np.uint8)
        label[:8] = values[-1]
        save(record["sem_seg_file_name"].rsplit("/", 1)[1], label)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 255), r"dataset streets: labels hold 0 and 255 only.*write 1 for white"),
        ((255, 7), r"dataset streets: every pixel of every label is ignored"),
        ((2, 2), r"dataset streets: labels hold the class 2 alone"),
        ((2, 7), r"dataset streets: labels hold the class 2 alone"),
    ],
)
def test_labels_from_which_nothing_is_learned(records, save, caplog, values, message):
    relabelled(records, save, *values)
    with pytest.raises(UsageError, match=message):
        judge_training_labels([check(records)])
    judge_training_labels([check(records, max_label_files=4)])  # the others may differ
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.match(message.replace("streets", r"streets \(4 labels\)"), warned[0])


@pytest.mark.parametrize("values", [(0, 255), (2, 2), (255, 7)])
def test_training_sets_are_judged_together(records, save, values):
    """One of them may hold background alone, or nothing."""
    sound = check(records)
    relabelled(records, save, *values)
    judge_training_labels([check(records, name="more"), sound])
    with pytest.raises(UsageError, match=r"dataset more \+ less: "):
        judge_training_labels([check(records, name="more"), check(records, name="less")])


def test_a_test_set_may_hold_one_class_but_not_none(records, save, caplog):
    for values in ((0, 255), (2, 2)):
        relabelled(records, save, *values)
        check(records, test=True)
    relabelled(records, save, 255, 7)
    with pytest.raises(UsageError, match="every pixel of every label is ignored"):
        check(records, test=True)


def test_much_that_is_ignored_is_said(records, save, caplog):
    for record in records:
        label = np.full((20, 30), 255, np.uint8)
        label[:2], label[2:4] = 0, 1
        save(record["sem_seg_file_name"].rsplit("/", 1)[1], label)
    judge_training_labels([check(records)])
    assert "80% of the pixels are ignored" in caplog.text


def test_turned_and_dim_images_are_told(records, save, caplog):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down: the size stays
    save("image1.png", Image.new("RGB", (30, 20)), exif=exif)
    save("image2.png", np.full((20, 30), 4095, np.uint16))
    save("image3.png", np.full((20, 30), 4096, np.uint16))
    check(records)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "EXIF rotation" in told[0] and "(1 file: " in told[0] and "image1.png" in told[0]
    assert "nearly black" in told[1] and "(1 file: " in told[1] and "image2.png" in told[1]
