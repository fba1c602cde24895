"""What the arguments of a command line name."""

import io
import os
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dnl_d2.errors import UsageError
from dnl_d2.prediction.sources import find_sources
from dnl_d2.prediction.writing import write_video
from tests.prediction.test_results import segmentation


@pytest.fixture
def picture(save):
    return lambda name, value=9: save(name, np.full((6, 8, 3), value, np.uint8))


def names(*arguments, **options):
    return [source.name for source in find_sources(arguments, **options)]


def test_folders_files_and_patterns(picture, tmp_path):
    for name in ("in/b.png", "in/a.JPG", "in/deep/c.bmp", "in/.hidden.png", "in/out/old.png"):
        picture(name)
    (tmp_path / "in" / "notes.txt").write_text("x")
    folder = tmp_path / "in"
    assert names(str(folder), without=str(folder / "out")) == ["a", "b", "deep/c"]
    assert names(str(folder / "b.png"), str(folder / "*.png")) == ["b"]  # each once
    assert names(str(folder / "**" / "*.bmp")) == ["c"]
    assert names(str(folder / "**" / "*.png"), without=str(folder / "out")) == ["b"]


def test_earlier_results_are_no_pictures(picture, tmp_path):
    picture("a.png"), picture("out/a_overlay.png"), picture("out/b_labels.png")
    (tmp_path / "out" / "a.json").write_text("{}")
    assert names(str(tmp_path)) == ["a", "out/b_labels"]  # there is no b.json


def test_pictures_that_would_be_black(save, caplog):
    dark = save("dark.png", np.full((6, 8), 700, np.uint16))
    assert next(find_sources([dark])[0].frames()).max() < 3
    assert "dark.png has 16 bits of which it fills 12 at most" in caplog.text
    fractions = save("x.tif", np.full((6, 8), 0.5, np.float32))
    with pytest.raises(UsageError, match=r"x.tif holds fractions, not grey values"):
        find_sources([fractions])[0].frames()


def test_names_that_differ_in_their_ending(picture, tmp_path):
    picture("a.png"), picture("a.jpg"), picture("b.png"), picture("other/b.png")
    folder = str(tmp_path)
    assert names(f"{folder}/a.png", f"{folder}/a.jpg") == ["a.png", "a.jpg"]
    assert names(folder) == ["a.jpg", "a.png", "b", "other/b"]
    with pytest.raises(UsageError, match=r"other/b.png: another .* same name, b.png: give their"):
        find_sources([f"{folder}/b.png", f"{folder}/other/b.png"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [("none.png", "no such file"), ("*.png", "no picture or video"), ("empty", "no picture or v")],
)
def test_arguments_that_name_nothing(argument, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        find_sources([str(tmp_path / argument)])


def test_standard_input(picture, monkeypatch, tmp_path):
    path = picture("a.png", 77)
    for data, name in ((Path(path).read_bytes(), "stdin"), (f"{path}\n\n".encode(), "a")):
        stream = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stream)
        (source,) = find_sources(["-"])
        assert source.name == name and (next(source.frames()) == 77).all()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00\xd8")))
    with pytest.raises(UsageError, match="-: standard input is no picture and no list"):
        find_sources(["-"])


def test_frames_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 6), (n, 0, 0)) for n in (0, 120, 240)]
    path = tmp_path / "x.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    (source,) = find_sources([str(path)])
    assert source.rate == 20
    assert [frame[0, 0, 0] for frame in source.frames()] == pytest.approx([0, 120, 240], abs=3)


def test_a_video_comes_out_as_a_video(tmp_path):
    path = str(tmp_path / "x.mp4")
    video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (32, 16))
    for n in range(5):
        video.write(np.full((16, 32, 3), (0, 0, 50 * n), np.uint8))
    video.release()
    (source,) = find_sources([path])
    frames = list(source.frames())
    assert source.rate == 12 and len(frames) == 5
    assert frames[4][8, 8, 0] > 150 > 90 > frames[4][8, 8, 2]  # RGB
    write_video(str(tmp_path / "out"), source, (segmentation() for _ in frames))
    written = cv2.VideoCapture(str(tmp_path / "out" / "x_overlay.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and written.get(cv2.CAP_PROP_FPS) == 12
    assert sorted(os.listdir(tmp_path / "out")) == ["x.json", "x_overlay.mp4"]

    def failing():
        yield segmentation()
        raise UsageError("a frame")

    wider = replace(
        segmentation(), image=np.zeros((10, 40, 3), np.uint8), labels=np.zeros((10, 40), int)
    )
    for results, message in (
        (failing(), "a frame"),
        ([segmentation(), wider], "not all of one si"),
    ):
        with pytest.raises(UsageError, match=message):
            write_video(str(tmp_path / "failed"), source, iter(results))
        assert os.listdir(tmp_path / "failed") == []
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (source,) = find_sources([str(tmp_path / "broken.mp4")])
    with pytest.raises(UsageError, match=r"broken.mp4 has no frame that can be read"):
        list(source.frames())


def test_a_video_that_is_cut_off_is_told(tmp_path, rng, caplog):
    path = tmp_path / "x.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (160, 120))
    for _ in range(20):
        video.write(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    video.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (source,) = find_sources([str(path)])
    assert 5 < len(list(source.frames())) < 15
    assert "x.avi: only" in caplog.text and "of its 20 frames can be read" in caplog.text
