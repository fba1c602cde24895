"""A folder that holds a run: no weights are lost, and figures of two runs do not mix."""

import errno
import json
import os

import pytest

from dnl_d2.engine import Trainer, run
from dnl_d2.engine.output_folder import clear
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
SHORT = {"length": 2, "period": 1}


def iterations(folder):
    lines = (folder / "metrics.json").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def contents(folder):
    files = (path for path in folder.iterdir() if path.is_file() and path.name != "log.txt")
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("kind", "key"), [(yaml_config, "OUTPUT_DIR"), (lazy_config, "train.output_dir")]
)
def test_a_second_run_needs_a_word(kind, key, tmp_path):
    run(kind(tmp_path, **SHORT), arguments())
    before = contents(tmp_path)
    message = rf"{key} .* \(.*model_final.pth\): --resume .*--overwrite"
    with pytest.raises(UsageError, match=message):
        run(kind(tmp_path, **SHORT), arguments())
    assert contents(tmp_path) == before
    (tmp_path / "inference_TTA").mkdir(exist_ok=True)
    (tmp_path / "inference_TTA" / "old.json").write_text("{}")
    run(kind(tmp_path, **SHORT, rate=0.001), arguments(overwrite=True))
    assert not (tmp_path / "inference_TTA").exists()
    assert (tmp_path / "model_final.pth").read_bytes() != before[tmp_path / "model_final.pth"]
    assert len(iterations(tmp_path)) == len(set(iterations(tmp_path)))
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    run(kind(tmp_path, **SHORT, weights=tmp_path / "model_final.pth"), arguments(eval_only=True))


def test_what_torchrun_starts_once_more_goes_on_with_its_own_run_only(tmp_path, monkeypatch):
    """It repeats the whole command, also where another run's weights had it refused."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "logs/mine/attempt_0/0/error.json")
    run(yaml_config(tmp_path, **SHORT), arguments())
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "logs/other/attempt_1/0/error.json")
    with pytest.raises(UsageError, match="--resume goes on with it"):
        run(yaml_config(tmp_path, length=4), arguments())
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "logs/mine/attempt_1/0/error.json")
    run(yaml_config(tmp_path, length=4), arguments(overwrite=True))
    assert "iterations  2 to 4" in (tmp_path / "log.txt").read_text()


def test_mistakes_delete_nothing(tmp_path):
    run(yaml_config(tmp_path, **SHORT), arguments())
    final = tmp_path / "model_final.pth"
    kept = sorted(tmp_path.glob("*.*"))
    with pytest.raises(UsageError, match=r"--overwrite would delete .*model_final.pth"):
        run(yaml_config(tmp_path, **SHORT, weights=final), arguments(overwrite=True))
    moved = tmp_path.parent / "other" / "moved.pth"
    moved.parent.mkdir()
    moved.write_bytes(final.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"moved.pth: truncated"):
        run(yaml_config(tmp_path, **SHORT, weights=moved), arguments(overwrite=True))
    assert sorted(tmp_path.glob("*.*")) == kept


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_a_run_that_does_not_name_its_last_checkpoint_goes_on_from_the_newest(kind, tmp_path):
    """Else it would start at iteration 0, over the weights that are there."""
    run(kind(tmp_path, length=3, period=2), arguments())
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "model_0000001.pth").touch()
    run(kind(tmp_path, length=4, period=3), arguments(resume=True))
    assert "iterations  3 to 4" in (tmp_path / "log.txt").read_text()
    for path in tmp_path.glob("model_[0f]*.pth"):
        path.unlink()
    (tmp_path / "last_checkpoint").unlink()
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"model_best.pth\), but no checkpoint of a run: write"):
        run(kind(tmp_path, **SHORT), arguments(resume=True))
    assert contents(tmp_path) == before
    (tmp_path / "model_gone.pth").symlink_to(tmp_path / "nowhere")
    run(kind(tmp_path, **SHORT, weights=""), arguments(overwrite=True))


def test_links_are_deleted_and_what_they_lead_to_stays(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "old.json").write_text("{}")
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "inference").symlink_to(disk)
    (run_folder / "inference_TTA").symlink_to(tmp_path / "nowhere")
    clear(str(run_folder))
    assert not list(run_folder.iterdir())
    assert (disk / "old.json").exists()


def test_an_evaluation_that_cannot_be_deleted_is_named(tmp_path, monkeypatch):
    """As on a disk that is mounted read-only; root may delete whatever permissions say."""
    old = tmp_path / "inference" / "old.json"
    old.parent.mkdir()
    old.write_text("{}")

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "unlink", refuse)  # which rmtree calls
    with pytest.raises(UsageError, match=r"--overwrite: .*inference cannot be deleted \(Perm"):
        clear(str(tmp_path))


def test_a_run_that_left_no_weights_stands_in_nobodys_way(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    run(yaml_config(tmp_path, **SHORT), arguments())


def test_a_trainer_of_ones_own_says_what_it_overwrites(tmp_path, caplog):
    """As Detectron2's does it without a word."""
    for said in (False, True):
        trainer = Trainer(yaml_config(tmp_path, **SHORT))
        trainer.resume_or_load(resume=False)
        trainer.train()
        assert ("which this one overwrites" in caplog.text) == said
    assert "model_final.pth" in caplog.text
