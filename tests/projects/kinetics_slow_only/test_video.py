"""Frames at given times: of what they show, and of files that do not hold them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.video import BrokenVideoError, open_video


def levels(path, times, short_side=32):
    with open_video(path) as video:
        frames = video.frames(times, short_side=short_side)
    assert frames.dtype == np.uint8 and frames.std((1, 2, 3)).max() < 2
    return frames.mean((1, 2, 3)).round(-1).astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mjpeg"), ("a.mp4", "libx264"), ("a.mkv", "libx264")]
)
def test_each_time_has_the_frame_that_is_shown_then(film, name, codec):
    path = film(name, range(0, 250, 10), codec=codec)
    with open_video(path) as video:
        assert video.duration == pytest.approx(2.5, abs=0.1) and video.size == (32, 48)
    assert levels(path, [0.0, 0.1, 0.19, 1.55, 2.4, 2.49]) == [0, 10, 10, 150, 240, 240]
    assert levels(path, [2.0, 0.3, 2.0]) == [200, 30, 200]  # any order, any number of times
    assert levels(path, [1.9]) == [190]  # not a key frame


def test_where_the_frame_rate_varies_the_clock_decides(film):
    path = film("a.mkv", [10, 50, 90, 130], times=[0.0, 0.1, 1.0, 1.1])
    assert levels(path, [0.0, 0.5, 0.99, 1.05, 1.1]) == [10, 50, 50, 90, 130]


def test_long_gaps_are_skipped_not_decoded(film):
    path = film("long.mp4", [n % 250 for n in range(0, 2500, 10)], rate=5, codec="libx264")
    read = []
    with open_video(path) as video:
        decode = video._decode
        video._decode = lambda: (read.append(f) or f for f in decode())
        frames = video.frames([0.0, 45.0], short_side=32)
    assert frames[1].mean() == pytest.approx((225 * 10) % 250, abs=3)
    assert len(read) < 40  # of 250


def test_sides_keep_their_proportions(film):
    path = film("wide.mp4", [100], size=(32, 64))
    with open_video(path) as video:
        assert video.frames([0.0], short_side=24).shape == (1, 24, 48, 3)


def test_what_is_no_video_is_named(film, sound, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path, message in (
        (sound, "sound.mp4: no video stream in it .streams: audio."),
        (text, "text.mp4: cannot be decoded"),
        (empty, "empty.mp4: cannot be decoded"),
        (tmp_path / "absent.mp4", "absent.mp4: no such file"),
    ):
        with pytest.raises(BrokenVideoError, match=message), open_video(str(path)):
            pass


def test_one_that_has_lost_its_end_is_named(film, tmp_path):
    whole = film("whole.mkv", range(0, 250, 5), codec="libx264")
    content = Path(whole).read_bytes()
    half = tmp_path / "half.mkv"
    half.write_bytes(content[: len(content) // 2])
    with open_video(whole) as video:
        wanted = video.duration - 0.1
    with (
        open_video(str(half)) as video,
        pytest.raises(BrokenVideoError, match=r"half.mkv: damaged"),
    ):
        video.frames(np.linspace(0.0, wanted, 20).tolist(), short_side=32)


def test_without_pyav_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match="pip install av"), open_video("a.mp4"):
        pass
