"""Videos whose frames are the same in every class, but for their order."""

import os

import numpy as np
import pytest

from dnl_d2.errors import UsageError
from dnl_d2_kinetics.generated_motion import FRAMES_PER_MOMENT, ORDERS, draw, generate_motion
from dnl_d2_kinetics.video import open_video


def places(order, seed):
    """Where the disc is in each moment: the column of the mean deviation from the background."""
    frames = draw(order, 64, np.random.default_rng(seed)).astype(float)[::FRAMES_PER_MOMENT]
    away = np.abs(frames - np.median(frames, 0)).sum(-1)
    away[away < 150] = 0
    return (away * np.arange(64)).sum((1, 2)) / away.sum((1, 2))


def test_classes_are_orders_of_the_same_frames():
    assert all(sorted(order) == list(range(8)) for order in ORDERS.values())
    for seed in range(5):
        found = {name: places(order, seed) for name, order in ORDERS.items()}
        first = np.sort(found["right"])
        assert np.diff(first).min() > 3
        for name, columns in found.items():
            assert np.allclose(np.sort(columns), first, atol=0.5), name
        assert np.all(np.diff(found["right"]) > 0) and np.all(np.diff(found["left"]) < 0)
        turning = np.sign(np.diff(found["right_and_back"]))
        assert turning.tolist() == [1, 1, 1, 1, -1, -1, -1]


def test_what_is_written_can_be_read(tmp_path):
    root = tmp_path / "made/motion"
    generate_motion(str(root), train=8, val=4, size=32)
    assert (root / "classes.txt").read_text().split() == list(ORDERS)
    lines = (root / "train.txt").read_text().split("\n")
    assert lines[:5] == [f"train/{n:05d}.mp4 {n % 4}" for n in range(5)]
    assert sorted(os.listdir(root / "val")) == [f"{n:05d}.mp4" for n in range(4)]
    with open_video(str(root / "val/00000.mp4")) as video:
        assert video.duration == pytest.approx(1.0) and video.size == (32, 32)
        read = video.frames([n / 8 for n in range(8)], short_side=32)
    drawn = draw(ORDERS["right"], 32, np.random.default_rng((0, 1, 0)))[::FRAMES_PER_MOMENT]
    assert np.abs(read.astype(int) - drawn).mean() < 8


def test_nothing_is_overwritten_or_half_written(tmp_path, monkeypatch):
    (tmp_path / "motion").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        generate_motion(str(tmp_path / "motion"), train=8, val=4)
    with pytest.raises(UsageError, match="val 2"):
        generate_motion(str(tmp_path / "other"), train=8, val=2)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnl_d2_kinetics.generated_motion.write_video", fail)
    with pytest.raises(UsageError, match=r"other: cannot be written .No space left"):
        generate_motion(str(tmp_path / "other"), train=8, val=4)
    assert os.listdir(tmp_path) == ["motion"]
