"""Lists of videos, their folders, and what is missing there."""

import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.errors import UsageError
from dnl_d2_kinetics import register_videos
from dnl_d2_kinetics.lists import load_kinetics, load_list, read_classes

HEADER = "label,youtube_id,time_start,time_end,split\n"
CLASSES = ["air drumming", "zumba"]


@pytest.fixture
def kinetics(tmp_path):
    """Two videos of one class in its folder, one of another whose name has an underscore."""
    lines = ["air drumming,-a_b,1,11,val", "air drumming,lost,0,10,val", "zumba,x,120,130,val"]
    (tmp_path / "val.csv").write_text(HEADER + "\n".join(lines) + "\n")
    for name in ("air_drumming/-a_b_000001_000011.mp4", "zumba/x_000120_000130.webm"):
        (tmp_path / "val" / name).parent.mkdir(parents=True)
        (tmp_path / "val" / name).touch()
    return tmp_path


def test_kinetics_files_by_class_id_and_seconds(kinetics, caplog):
    records = load_kinetics(str(kinetics / "val.csv"), str(kinetics / "val"), CLASSES)
    assert records == [
        {
            "file_name": f"{kinetics}/val/air_drumming/-a_b_000001_000011.mp4",
            "category_id": 0,
        },
        {"file_name": f"{kinetics}/val/zumba/x_000120_000130.webm", "category_id": 1},
    ]
    assert "1 of 3 videos are not in" in caplog.text
    assert "left out: air drumming/lost_000000_000010" in caplog.text
    assert "have no video" not in caplog.text


def test_a_missing_folder_of_a_class_is_named(kinetics, caplog):
    (kinetics / "val/zumba/x_000120_000130.webm").unlink()
    (kinetics / "val/zumba").rmdir()
    with caplog.at_level(logging.WARNING):
        load_kinetics(str(kinetics / "val.csv"), str(kinetics / "val"), CLASSES)
    assert "1 classes have no video there, such as 'zumba'" in caplog.text


def test_files_without_folders_of_classes(kinetics):
    (kinetics / "flat").mkdir()
    (kinetics / "flat/lost_000000_000010.mp4").touch()
    (found,) = load_kinetics(str(kinetics / "val.csv"), str(kinetics / "flat"), CLASSES)
    assert found["file_name"].endswith("flat/lost_000000_000010.mp4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER, "val.csv: the list is empty"),
        ("", "no column 'label' in its first line"),
        ("youtube_id,time_start,time_end,split\nx,1,2,test\n", "the test set has no labels"),
        (HEADER + "zumba,x,one,11,val\n", "val.csv:2: time_start and time_end must be seconds"),
        (HEADER + "yoga,x,1,11,val\n", "class 'yoga' is none of the 2 classes"),
        (HEADER + "zumba,gone,1,11,val\n", "none of the 1 videos .*zumba/gone_000001_000011"),
    ],
)
def test_wrong_csv_files(kinetics, content, message):
    (kinetics / "val.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_kinetics(str(kinetics / "val.csv"), str(kinetics / "val"), CLASSES)


def test_missing_list_and_folder(kinetics):
    with pytest.raises(UsageError, match=r"absent.csv: the list of videos cannot be read"):
        load_kinetics(str(kinetics / "absent.csv"), str(kinetics / "val"), CLASSES)
    with pytest.raises(UsageError, match="absent: there is no such folder of videos"):
        load_kinetics(str(kinetics / "val.csv"), str(kinetics / "absent"), CLASSES)


def test_paths_and_numbers(tmp_path, caplog):
    (tmp_path / "a b.mp4").touch()
    (tmp_path / "list.txt").write_text("a b.mp4 1\n\ngone.mp4 0\n")
    records = load_list(str(tmp_path / "list.txt"), str(tmp_path), CLASSES)
    assert records == [{"file_name": str(tmp_path / "a b.mp4"), "category_id": 1}]
    assert "1 of 2 videos are not in" in caplog.text and "gone.mp4" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 2\n", r"list.txt:1: 'a.mp4 2': expected a path, a space and a class from 0 to 1"),
        ("a.mp4 -1\n", "list.txt:1"),
        ("a.mp4\n", "list.txt:1"),
        ("a.mp4 one\n", "list.txt:1"),
        (" \n", "list.txt: the list is empty"),
        ("a.mp4 0\n", "none of the 1 videos"),
    ],
)
def test_wrong_text_files(tmp_path, content, message):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(UsageError, match=message):
        load_list(str(tmp_path / "list.txt"), str(tmp_path), CLASSES)


def test_classes(kinetics):
    assert read_classes(str(kinetics / "val.csv")) == CLASSES
    (kinetics / "classes.txt").write_text("b\na\n")
    assert read_classes(str(kinetics / "classes.txt")) == ["b", "a"]
    (kinetics / "classes.txt").write_text("a\na\n")
    with pytest.raises(UsageError, match="each once"):
        read_classes(str(kinetics / "classes.txt"))


def test_a_registered_dataset_reads_below_the_datasets_folder(kinetics, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(kinetics))
    name = "videos_of_a_test"
    register_videos(name, annotations="val.csv", videos="val", classes="val.csv")
    try:
        assert MetadataCatalog.get(name).evaluator_type == "classification"
        assert len(DatasetCatalog.get(name)) == 2
        assert MetadataCatalog.get(name).classes == CLASSES
        with pytest.raises(UsageError, match="there is a dataset 'videos_of_a_test' already"):
            register_videos(name, annotations="val.csv", videos="val", classes="val.csv")
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
