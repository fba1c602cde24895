"""Runs as a person starts them: train, resume, evaluate, and with broken videos."""

import json
import os
import runpy
import subprocess
import sys

import pytest

from dnl_d2.engine import command_line
from dnl_d2_kinetics.generated_motion import generate_motion
from tests.engine.runs import environment  # noqa: F401

PROJECT = "projects/kinetics_slow_only"
CONFIG = f"{PROJECT}/configs/generated/dnl_slow_only_r18w16.py"
SHORT = [
    "train.device=cpu", "train.max_iter=2", "train.eval_period=0", "train.log_period=1",
    "train.checkpointer.period=2", "lr_multiplier.iterations=0", "dataloader.train.num_workers=0",
    "dataloader.train.total_batch_size=2", "model.backbone.stem_out_channels=8",
    "model.backbone.res2_out_channels=8",
]  # fmt: skip


@pytest.fixture
def videos(environment, tmp_path, monkeypatch):  # noqa: F811
    """A ``$DETECTRON2_DATASETS`` with twelve generated videos."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    generate_motion(str(tmp_path / "generated_motion"), train=8, val=4, size=64)
    return tmp_path / "generated_motion"


def arguments(root, folder, *flags, **options):
    given = [f"{key.replace('__', '.')}={value}" for key, value in options.items()]
    return [
        "--config-file", str(root / CONFIG), *flags, *SHORT, f"train.output_dir={folder}", *given,
    ]  # fmt: skip


def test_it_trains_resumes_evaluates_and_survives_broken_videos(videos, root, tmp_path, caplog):
    (videos / "train/00001.mp4").write_bytes(b"broken")
    (videos / "val/00002.mp4").unlink()
    (videos / "val/00003.mp4").write_bytes(b"broken")
    out = tmp_path / "out"
    command_line(arguments(root, out, train__max_iter=5), name="train")
    said = (out / "log.txt").read_text()
    assert "val.txt: 1 of 4 videos are not in" in said and "val/00002.mp4" in said
    assert "train/00001.mp4: cannot be decoded" in said and "another one is taken" in said
    assert "val/00003.mp4: cannot be decoded" in said and "counts as not recognised" in said
    figures = out / "inference/generated_motion_val/classification_evaluation.json"
    found = json.loads(figures.read_text())
    assert found["images"] == 3 and found["classification"]["top1"] < 67
    command_line(arguments(root, out, "--resume", train__max_iter=6), name="train")
    assert "iterations  5 to 6" in (out / "log.txt").read_text()
    figures.unlink()
    weights = {"train__init_checkpoint": out / "model_final.pth"}
    command_line(arguments(root, out, "--eval-only", **weights), name="train")
    assert json.loads(figures.read_text())["images"] == 3


def test_a_missing_list_ends_the_script_in_one_line(videos, root, tmp_path, monkeypatch):
    (videos / "train.txt").unlink()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), *filter(None, sys.path)]))
    script = [sys.executable, f"{PROJECT}/train_video_net.py"]
    ended = subprocess.run(
        [*script, *arguments(root, tmp_path / "out")],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("train_video_net.py: error: ") and "train.txt" in last


def test_videos_are_generated_by_a_script(root, tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "motion")
    script = str(root / PROJECT / "generate_videos.py")
    monkeypatch.setattr(sys, "argv", [script, "--train", "4", "--val", "4", "--root", folder])
    runpy.run_path(script, run_name="__main__")
    assert capsys.readouterr().out.strip() == folder
    assert len(os.listdir(tmp_path / "motion/val")) == 4
    with pytest.raises(SystemExit, match=r"generate_videos.py: error: .*is there already"):
        runpy.run_path(script, run_name="__main__")
