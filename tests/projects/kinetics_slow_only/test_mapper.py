"""Clips of videos: sizes, views, and videos that cannot be read."""

import logging

import numpy as np
import pytest
import torch

from dnl_d2.errors import UsageError
from dnl_d2_kinetics import TestClipMapper, TrainClipMapper
from dnl_d2_kinetics.sampling import ClipShape

SMALL = dict(num_frames=4, stride=2, rate=10.0)


def record(path, label=1):
    return {"file_name": str(path), "category_id": label}


def test_times_of_a_clip():
    shape = ClipShape(frames=4, stride=2, rate=10.0)
    assert shape.span == pytest.approx(0.8)
    assert shape.times(1.0, duration=9.0) == pytest.approx([1.0, 1.2, 1.4, 1.6])
    assert shape.times(0.0, duration=0.5) == pytest.approx([0.0, 0.2, 0.4, 0.1])  # begins again
    assert shape.uniform_starts(5.8, 3) == pytest.approx([0.0, 2.5, 5.0])
    assert shape.uniform_starts(5.8, 1) == [2.5]
    assert shape.uniform_starts(0.5, 2) == [0.0, 0.0] and shape.random_start(0.5) == 0.0
    assert 0 <= shape.random_start(1.8) <= 1.0


def test_training_takes_one_clip_in_order(film):
    path = film("a.mp4", range(0, 250, 5))
    mapper = TrainClipMapper(**SMALL, short_side=(32, 40), crop_size=32)
    starts = set()
    for _ in range(8):
        mapped = mapper(record(path))
        assert mapped["category_id"] == 1 and mapped["file_name"] == path
        clips = mapped["clips"]
        assert clips.dtype == torch.uint8 and clips.shape == (1, 3, 4, 32, 32)
        means = clips[0].float().mean((0, 2, 3))
        assert (means.diff() - 10).abs().max() < 3  # two frames of 5 levels on
        starts.add(round(means[0].item()))
    assert len(starts) > 1


def test_every_second_clip_is_mirrored_unless_told_not_to(tmp_path):
    from dnl_d2_kinetics.generated_motion import write_video

    frames = np.zeros((8, 32, 32, 3), np.uint8)
    frames[:, :, 16:] = 200
    write_video(str(tmp_path / "a.mp4"), frames, rate=10)

    def brighter_sides(flip):
        mapper = TrainClipMapper(**SMALL, short_side=(32, 32), crop_size=32, flip=flip)
        clips = [mapper(record(tmp_path / "a.mp4"))["clips"].float() for _ in range(16)]
        return {bool(c[..., :16].mean() > c[..., 16:].mean()) for c in clips}

    assert brighter_sides(True) == {True, False} and brighter_sides(False) == {False}


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_views_are_clips_by_crops_along_the_longer_side(film, size):
    path = film("a.mp4", range(0, 250, 5), size=size)
    mapper = TestClipMapper(**SMALL, short_side=32, crop_size=32, num_clips=2, num_crops=3)
    clips = mapper(record(path))["clips"]
    assert clips.shape == (6, 3, 4, 32, 32)
    means = clips.float().mean((1, 2, 3, 4))
    assert means[:3].std() < 1 and means[3:].std() < 1 and means[3] - means[0] > 100
    corners = mapper._corners(size)
    assert [max(c) for c in corners] == [0, 16, 32] and [min(c) for c in corners] == [0, 0, 0]
    one = TestClipMapper(**SMALL, short_side=32, crop_size=32, num_clips=1, num_crops=1)
    assert one(record(path))["clips"].shape[0] == 1 and max(one._corners(size)[0]) == 16


def test_a_video_shorter_than_a_clip_begins_again(film):
    path = film("short.mp4", [40, 80, 120])  # 0.3 of 0.8 seconds
    mapper = TestClipMapper(**SMALL, short_side=32, crop_size=32, num_clips=1, num_crops=1)
    means = mapper(record(path))["clips"].float().mean((0, 1, 3, 4)).round(decimals=-1)
    assert means.tolist() == [40, 120, 80, 40]


def test_training_takes_another_video_for_a_broken_one_and_names_it(film, tmp_path, caplog):
    good, broken = film("good.mp4", range(0, 200, 10)), tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    mapper = TrainClipMapper(**SMALL, short_side=(32, 32), crop_size=32)
    assert mapper(record(good)) is not None
    for _ in range(9):
        assert mapper(record(broken)) is None
    assert "broken.mp4: cannot be decoded" in caplog.text and "another one is taken" in caplog.text
    with pytest.raises(UsageError, match=r"10 videos in a row are broken; the last: .*broken.mp4"):
        mapper(record(broken))


def test_the_first_videos_all_broken_end_the_run(tmp_path):
    mapper = TestClipMapper(**SMALL, short_side=32, crop_size=32)
    for _ in range(2):
        mapper(record(tmp_path / "absent.mp4"))
    with pytest.raises(UsageError, match=r"3 videos in a row .*absent.mp4: no such file"):
        mapper(record(tmp_path / "absent.mp4"))


def test_evaluation_gives_a_broken_video_no_views_and_names_it(sound, caplog):
    mapper = TestClipMapper(**SMALL, short_side=32, crop_size=32)
    with caplog.at_level(logging.WARNING):
        mapped = mapper(record(sound))
    assert mapped["clips"].shape == (0, 3, 4, 32, 32) and mapped["category_id"] == 1
    assert "sound.mp4: no video stream" in caplog.text
    assert "counts as not recognised" in caplog.text


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TrainClipMapper, dict(num_frames=0), "num_frames 0"),
        (TrainClipMapper, dict(short_side=(100, 200)), "crop_size 224"),
        (TrainClipMapper, dict(short_side=(300, 200)), "least, most"),
        (TestClipMapper, dict(rate=0), "rate 0"),
        (TestClipMapper, dict(num_crops=0), "num_crops 0"),
        (TestClipMapper, dict(short_side=128), "no more than short_side 128"),
    ],
)
def test_options_that_cannot_be_meant(kind, options, message):
    with pytest.raises(UsageError, match=message):
        kind(**options)
