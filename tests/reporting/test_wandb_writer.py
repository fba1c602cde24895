"""Weights & Biases: what is sent, and to where. Nothing here needs a network."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from dnl_d2.engine import run
from dnl_d2.errors import UsageError
from dnl_d2.reporting.wandb_writer import WandbWriter
from tests.engine.runs import arguments, environment, lazy_config  # noqa: F401


class Failure(Exception):
    pass


@pytest.fixture
def wandb(monkeypatch):
    """A package that notes what it is told."""
    noted = SimpleNamespace(started=[], logged=[], finished=0, fails=False)

    def init(**options):
        if noted.fails:
            raise Failure("api_key not\nconfigured")
        noted.started.append(options)
        return SimpleNamespace(
            log=noted.logged.append,
            define_metric=lambda name, step_metric: None,
            finish=lambda: setattr(noted, "finished", noted.finished + 1),
        )

    module = SimpleNamespace(
        init=init, Image=lambda array: array.shape, errors=SimpleNamespace(Error=Failure)
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return noted


def writer(folder, config=None):
    return WandbWriter(
        str(folder), project="p", name="n", config=config or {}, key="train.wandb.project"
    )


def test_each_figure_and_picture_is_sent_once(wandb, tmp_path):
    mine = writer(tmp_path)
    with EventStorage(10) as storage:
        mine.write()  # not started: nothing
        mine.start(resumed=False)
        storage.put_scalar("total_loss", 2.0)
        storage.put_image("val/a", np.zeros((3, 4, 5), np.uint8))
        mine.write()
        storage.clear_images()  # as the TensorboardXWriter behind it does
        mine.write()
        storage.iter = 11
        storage.put_scalar("total_loss", 1.0)
        mine.write()
        mine.close()
        mine.close()
    assert wandb.logged == [
        {"iteration": 10, "total_loss": 2.0, "val/a": (4, 5, 3)},
        {"iteration": 11, "total_loss": 1.5},  # a median, as in Detectron2's other writers
    ]
    assert wandb.finished == 1


def test_a_picture_that_cannot_be_sent_is_a_warning(wandb, tmp_path, monkeypatch, caplog):
    def full(array):
        raise OSError("no space left on the disk")

    monkeypatch.setattr(sys.modules["wandb"], "Image", full)
    mine = writer(tmp_path)
    mine.start(resumed=False)
    with EventStorage() as storage:
        storage.put_image("val/a", np.zeros((3, 4, 5), np.uint8))
        mine.write()
    assert "nothing is sent to Weights & Biases: OSError: no space left" in caplog.text


def test_a_resumed_run_goes_on_under_its_name(wandb, tmp_path):
    for resumed in (False, True, False):
        writer(tmp_path).start(resumed=resumed)
    one, two, three = (options["id"] for options in wandb.started)
    assert one == two != three
    assert {options["dir"] for options in wandb.started} == {str(tmp_path)}
    assert "WANDB_CACHE_DIR" not in os.environ


def test_the_config_is_sent_as_plain_values(wandb, tmp_path):
    config = OmegaConf.create({"a": [1, "${b}"], "b": None}, flags={"allow_objects": True})
    config.c = {"_target_": WandbWriter}
    writer(tmp_path, config).start(resumed=False)
    assert wandb.started[0]["config"] == {
        "a": [1, "${b}"], "b": None, "c": {"_target_": "WandbWriter"}
    }  # fmt: skip


def test_what_is_lacking_is_said_in_a_line(wandb, tmp_path, monkeypatch):
    wandb.fails = True
    with pytest.raises(UsageError, match=r"train.wandb.project: .* \(api_key not configured\)"):
        writer(tmp_path).start(resumed=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"train.wandb.project p: .* dnl_d2\[wandb\]"):
        writer(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_the_package_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = {"train__wandb__project": "stripes", "train__eval_pictures": 1}
    run(lazy_config(out, length=2, **options), arguments())
    run(lazy_config(out, length=3, **options), arguments(resume=True))
    number = (out / "wandb" / "run_id.txt").read_text().strip()
    kept = [path for path in (out / "wandb").glob("offline-run-*") if path.name.endswith(number)]
    assert len(kept) == 2 and all(list(path.glob("*.wandb")) for path in kept)
    assert list(kept[0].glob("files/media/images/generated_sem_seg_val/*.png"))
    assert not [path for path in home.rglob("*") if "wandb" in str(path.relative_to(home))]
