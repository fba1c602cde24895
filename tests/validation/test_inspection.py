"""dnl_d2.validation: every kind of trouble is found, and sound data has none."""

import json
import os
import runpy

import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.validation import (
    draw_contact_sheet,
    folder_set,
    inspect_sets,
)
from dnl_d2.validation.judgements import convertible_colors
from dnl_d2.validation.label_maps import check_sem_seg_dataset, judge_training_labels
from dnl_d2.validation.suggestions import conversion_script
from dnl_d2.validation.tables import as_data, as_text
from tests.pictures import truncate
from tests.validation.pictures import ABC, BLACK, GREEN, RED, drawn, found

NAME = "inspected"


def test_sound_data_has_no_findings_and_the_figures_are_right(make, rng):
    labels = [rng.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(5)]
    labels[0][:10] = 255
    labels[3][labels[3] == 2] = 1
    inspection = inspect_sets([folder_set("t", *make(*labels), classes=ABC)], workers=3)
    assert inspection.findings == [] and inspection.errors == 0
    data = json.loads(json.dumps(as_data(inspection)))["sets"]["t"]
    everything = np.stack(labels)
    for value in (0, 1, 2, 255):
        assert data["values"][str(value)] == {
            "pixels": int((everything == value).sum()),
            "labels": sum(bool((label == value).any()) for label in labels),
        }
    assert data["ignored_pixels"] == 300 and data["label_pixels"] == 5 * 600
    assert data["image_sizes"] == {"30x20": 5} and data["image_modes"] == {"RGB": 5}
    # Median-frequency balancing, spelt out.
    frequency = []
    for value in range(3):
        images = [label for label in labels if (label == value).any()]
        labelled = sum((label != 255).sum() for label in images)
        frequency.append(sum((label == value).sum() for label in images) / labelled)
    expected = [sorted(frequency)[1] / f for f in frequency]
    assert inspection.weights == pytest.approx(expected, rel=1e-3)
    assert "30x20 (5)" in as_text(inspection) and "(ignored)" in as_text(inspection)


def test_broken_files_are_named_and_the_others_are_read(make, tmp_path):
    folders = make(*[drawn(0, 1, 2)] * 8)
    truncate(f"{folders[0]}/1.png")
    (tmp_path / "trainannot/2.png").write_bytes(b"text")
    (tmp_path / "train/3.png").write_bytes(b"")
    Image.new("RGB", (40, 60)).save(f"{folders[0]}/4.png")
    drawn(0, 9).save(f"{folders[1]}/5.png")
    os.remove(f"{folders[0]}/6.png")
    os.remove(f"{folders[1]}/7.png")
    findings = found(folder_set("t", *folders, classes=ABC))
    assert {code for code, finding in findings.items() if finding.level == "error"} == {
        "broken", "size", "invalid_value", "image_without_label", "label_without_image",
    }  # fmt: skip
    assert len(findings["broken"].files) == 3
    for number, name in enumerate(("1.png", "2.png", "3.png")):
        assert name in findings["broken"].files[number]
    assert findings["size"].files == [f"{folders[0]}/4.png (40x60 and 60x40)"]
    assert findings["invalid_value"].files == [f"{folders[1]}/5.png (9)"]
    assert findings["image_without_label"].files == [f"{folders[0]}/7.png"]
    assert findings["label_without_image"].files == [f"{folders[1]}/6.png"]
    assert findings["constant"].files == [f"{folders[0]}/4.png"]


def test_a_line_names_three_files_and_counts_the_rest(make):
    findings = found(folder_set("t", *make(*[drawn(0, 7)] * 5), classes=ABC))
    line = findings["invalid_value"].line("t")
    assert "0 to 2; 255 is ignored" in line and "5 files" in line and "and 2 more" in line
    assert "2.png" in line and "3.png" not in line


@pytest.mark.parametrize(
    ("values", "classes", "codes"),
    [
        ((0, 255), ABC, {"binary", "class_never_seen"}),
        ((0, 255), None, {"binary"}),
        ((1, 2), ABC, {"starts_above_0"}),
        ((1, 2, 3), ABC, {"starts_above_0", "invalid_value"}),
        ((0, 1), ABC, {"class_never_seen"}),
        ((0, 76, 150), None, {"gaps"}),
        ((0, 76), ABC, {"invalid_value", "class_never_seen"}),
        (tuple(range(8)), ABC, {"invalid_value"}),
        ((0, 1, 2, 9), ABC, {"invalid_value"}),
        ((0, 1, 2), None, set()),
        ((255,), ABC, {"all_ignored", "unlabelled_pixels"}),
        ((255, 0, 1, 2), ABC, {"much_ignored"}),
        ((0, 1, 2, 3), ABC, {"invalid_value"}),
    ],
)
def test_values_that_are_not_the_classes(make, values, classes, codes):
    inspection = inspect_sets([folder_set("t", *make(drawn(*values)), classes=classes)])
    findings = {finding.code: finding for _, finding in inspection.findings}
    assert set(findings) == codes
    if "binary" in codes:  # with classes, all but the first are lost
        assert findings["binary"].level == ("error" if classes else "warning")
    grey = values in ((0, 255), (0, 76, 150), (0, 76))
    assert bool(convertible_colors(inspection.summaries)[0]) == grey


def test_a_value_of_several_palette_colours_is_told(make, caplog):
    def indexed(*colors):
        picture = drawn(0, 1, 2).convert("P")
        picture.putdata(list(drawn(0, 1, 2).tobytes()))
        picture.putpalette([0, 0, 0, *colors])
        return picture

    same = make(indexed(255, 0, 0, 0, 255, 0), indexed(255, 0, 0, 0, 255, 0))
    assert not found(folder_set("t", *same, classes=ABC))
    swapped = make(indexed(255, 0, 0, 0, 255, 0), indexed(0, 255, 0, 255, 0, 0), folder="swapped")
    finding = found(folder_set("t", *swapped, classes=ABC))["palettes"]
    assert "value 1 as (255, 0, 0) in" in finding.text and "as (0, 255, 0) in" in finding.text
    files = [(f"{swapped[0]}/{i}.png", f"{swapped[1]}/{i}.png") for i in range(2)]
    records = [{"file_name": image, "sem_seg_file_name": label} for image, label in files]
    read = check_sem_seg_dataset(records, num_classes=3, ignore_label=255, name="t")
    judge_training_labels([read])
    assert finding.text in caplog.text


def test_off_by_one_is_told_apart(make):
    hints = []
    for number, values in enumerate(((1, 2, 3), (0, 1, 2, 3), (0, 1, 9))):
        folders = make(drawn(*values), folder=f"f{number}")
        hints.append(found(folder_set("t", *folders, classes=ABC))["invalid_value"].text)
    assert "count from 1" in hints[0]
    assert "255 for 0" in hints[1]
    assert "correct the labels" in hints[2]


def test_an_ignored_class_is_told(make):
    findings = found(folder_set("t", *make(drawn(0, 1, 2)), classes=ABC, ignore_label=1))
    assert set(findings) == {"ignored_class", "class_never_seen"}


def test_other_modes_are_read_as_ids(make):
    palette = drawn(0, 1, 2, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    deep = Image.fromarray(np.asarray(drawn(0, 1, 2)).astype(np.uint16))
    inspection = inspect_sets([folder_set("t", *make(palette, deep), classes=ABC)])
    assert inspection.findings == []
    assert sorted(inspection.summaries[0].label_modes) == ["I;16", "P"]


def test_colours_are_listed_and_the_script_turns_them_into_ids(make, tmp_path):
    folders = make(drawn(BLACK, RED, GREEN, mode="RGB"), drawn(BLACK, GREEN, mode="RGB"))
    inspection = inspect_sets([folder_set("t", *folders, classes=ABC)])
    assert [f.code for _, f in inspection.findings] == ["colored"]
    assert "3 colours" in inspection.findings[0][1].text
    assert "(0, 255, 0)" in as_text(inspection)
    colors, tolerance = convertible_colors(inspection.summaries)
    assert {code for code, _ in colors} == {0, 0xFF0000, 0x00FF00} and tolerance == 0
    assert sum(share for _, share in colors) == pytest.approx(1)
    order = [(0x00FF00, 0), (0, 0)]  # two classes, red is no one's
    script = tmp_path / "convert.py"
    script.write_text(conversion_script(order, [folders[1]], tolerance=tolerance))
    runpy.run_path(str(script))
    for name in ("0.png", "1.png"):
        rgb = np.asarray(Image.open(f"{folders[1]}/{name}"))
        expected = np.where(rgb[..., 1] == 255, 0, np.where(rgb[..., 0] == 255, 255, 1))
        ids = Image.open(f"{folders[1]}_ids/{name}")
        assert ids.mode == "L"
        np.testing.assert_array_equal(np.asarray(ids), expected)


def test_grey_ids_in_three_channels_are_told(make):
    findings = found(folder_set("t", *make(drawn(0, 1, 2).convert("RGB")), classes=ABC))
    assert "keep one channel" in findings["colored"].text


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("how", ["smooth", "jpeg"])
def test_smeared_labels_are_told_and_their_main_colours_found(make, mode, how):
    values = (0, 100, 200) if mode == "L" else (BLACK, RED, GREEN)
    if how == "smooth":
        folders = make(*[drawn(*values, mode=mode, scale=5, smooth=4)] * 2)
    else:
        folders = make(*[drawn(*values, mode=mode, scale=5)] * 2, suffix=".jpg", quality=90)
    inspection = inspect_sets([folder_set("t", *folders)])
    codes = {finding.code for _, finding in inspection.findings}
    assert "smeared" in codes and ("label_format" in codes) == (how == "jpeg")
    colors, tolerance = convertible_colors(inspection.summaries)
    wanted = [value * 0x010101 for value in values] if mode == "L" else [0, 0xFF0000, 0x00FF00]
    assert tolerance > 0 and len(colors) == 3
    for code, _ in colors:  # JPEG may shift a colour by a little
        assert any(
            all(abs((code >> s & 255) - (want >> s & 255)) <= 3 for s in (0, 8, 16))
            for want in wanted
        )


def test_many_classes_are_not_smeared(make):
    areas = np.arange(150, dtype=np.uint8).reshape(10, 15).repeat(3, 0).repeat(2, 1)
    assert found(folder_set("t", *make(areas), classes=[f"c{i}" for i in range(150)])) == {}


def test_two_sets_are_compared(make):
    train = make(drawn(0, 1, 2), drawn(0, 1))
    val = make(drawn(0, 1), folder="val")
    Image.open(f"{train[0]}/1.png").save(f"{val[0]}/0.png", compress_level=1)  # other bytes
    findings = found(folder_set("t", *train, classes=ABC), folder_set("v", *val, classes=ABC))
    assert set(findings) == {"leak", "class_lacking"}
    assert findings["leak"].files == [f"{val[0]}/0.png = {train[0]}/1.png"]
    assert "2 c" in findings["class_lacking"].text


@pytest.mark.parametrize(
    ("others", "level"), [(["b", "a", "c"], "error"), (["A", "b", "C"], "warning")]
)
def test_the_same_classes_by_other_numbers_are_an_error(make, others, level):
    folders = make(drawn(0, 1, 2))
    findings = found(
        folder_set("t", *folders, classes=ABC), folder_set("v", *folders, classes=others)
    )
    assert findings["other_classes"].level == level


def test_a_test_set_may_lack_classes_by_chance(make):
    val = folder_set("v", *make(drawn(0, 255), folder="val"), classes=ABC)
    full = folder_set("t", *make(drawn(0, 1, 2)), classes=ABC)
    assert found(full, val)["binary"].level == "warning"
    assert found(val, full)["binary"].level == "error"


def test_only_labels_are_said_to_hold_ids(make, tmp_path):
    folders = make(drawn(0, 1, 2))
    for folder in folders:
        Image.open(f"{folder}/0.png").save(f"{folder}/0.bmp")
        os.remove(f"{folder}/0.png")
    findings = found(folder_set("t", *folders, classes=ABC))
    assert "JPEG" in findings["label_format"].text
    assert "JPEG" not in findings["image_format"].text


def test_repeated_and_turned_pictures_are_told(make):
    folders = make(*[drawn(0, 1, 2)] * 3)
    Image.open(f"{folders[0]}/0.png").save(f"{folders[0]}/2.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60), (9, 9, 9)).save(f"{folders[0]}/1.png", exif=exif)
    findings = found(folder_set("t", *folders, classes=ABC))
    assert set(findings) == {"repeated", "turned", "constant", "size"}
    assert findings["size"].files[0].endswith("(40x60 and 60x40, EXIF rotation)")


def test_dim_pictures_are_told(make, save):
    train = make(drawn(0, 1, 2), drawn(0, 2, 1))
    save("train/1.png", (np.arange(2400).reshape(40, 60) + 1).astype(np.uint16))  # 12 bits
    assert found(folder_set("t", *train, classes=ABC))["dim"].files == [f"{train[0]}/1.png"]


def test_contact_sheet_shows_the_classes_in_their_colours(make, tmp_path):
    folders = make(*[drawn(0, 1, 9)] * 3)
    truncate(f"{folders[0]}/1.png")
    source = folder_set("t_$x$", *folders, classes=["_a", "b", "c"])
    assert draw_contact_sheet(str(tmp_path / "s.png"), [source], classes=["_a", "b", "c"]) == 2
    pixels = np.asarray(Image.open(tmp_path / "s.png").convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 255)).all(axis=1).sum() > 50  # the legend's "no class"
    assert [p.name for p in tmp_path.glob("s.png*")] == ["s.png"]
    assert draw_contact_sheet(str(tmp_path / "none.png"), [], classes=ABC) == 0
    assert not (tmp_path / "none.png").exists()
    with pytest.raises(UsageError, match="cannot be written"):
        draw_contact_sheet(str(tmp_path / "gone" / "s.png"), [source], classes=ABC)
