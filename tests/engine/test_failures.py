"""What goes wrong in the middle of a run: checkpoints survive, and one line says what to do."""

import errno
import logging
import os
import resource

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from torch import nn

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.engine import run
from dnl_d2.engine.failures import explaining_failures
from dnl_d2.errors import UsageError
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
KINDS = [yaml_config, lazy_config]
SCALES = "dataloader.test_augmentation"


@pytest.fixture
def checkpointer(tmp_path):
    return Checkpointer(nn.Linear(2, 2), str(tmp_path))


def test_an_interrupted_save_keeps_the_earlier_checkpoint(checkpointer, tmp_path, monkeypatch):
    checkpointer.save("model_0000001")
    earlier = (tmp_path / "model_0000001.pth").read_bytes()
    for error in (OSError(errno.ENOSPC, "full"), RuntimeError("unexpected pos 64 vs 0")):

        def fail(content, path, error=error):
            with open(path, "wb") as file:
                file.write(b"half")
            raise error

        monkeypatch.setattr(torch, "save", fail)
        for name in ("model_0000001", "model_0000002"):
            with pytest.raises(UsageError, match=rf"{name}.pth: cannot be written"):
                checkpointer.save(name)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert (tmp_path / "model_0000001.pth").read_bytes() == earlier
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_a_run_never_goes_on_from_its_best_checkpoint(checkpointer, tmp_path):
    checkpointer.save("model_best")
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000001", iteration=1)
    checkpointer.save("model_best")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    assert torch.load(tmp_path / "model_0000001.pth")["iteration"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_diverged_run_says_so(kind, tmp_path):
    with pytest.raises(UsageError, match=r"training diverged: .*lower the learning rate") as error:
        run(kind(tmp_path, rate=1e30), arguments())
    assert "\n" not in str(error.value)


def test_a_divergence_is_told_in_one_sentence():
    wanted = r"^training diverged: Scores contain NaN. Training has diverged; lower the learning"
    with pytest.raises(UsageError, match=wanted), explaining_failures():
        raise FloatingPointError("Scores contain NaN. Training has diverged.")


def test_a_full_disk_is_named_even_if_later_hooks_fail_too(tmp_path, monkeypatch):
    class Checkpoint(HookBase):
        def after_step(self):
            raise UsageError("model_final.pth: cannot be written")

        def after_train(self):
            raise UsageError("evaluation: cannot write")

    trainer = TrainerBase()
    trainer.run_step = lambda: None
    trainer.register_hooks([Checkpoint()])
    with pytest.raises(UsageError, match="model_final"), explaining_failures():
        trainer.train(0, 1)


def test_a_single_value_per_channel_is_one_line():
    message = r"batch norm has a single value .* two images or more"
    with pytest.raises(UsageError, match=message), explaining_failures():
        torch.nn.BatchNorm2d(3)(torch.ones(1, 3, 1, 1))


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError, match="of mine"), explaining_failures():
        raise ZeroDivisionError("of mine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_told_in_a_line(kind, tmp_path, capfd):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    cfg = kind(tmp_path, length=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UsageError, match=r"model_final.pth: .*\(no space left on the disk"):
            run(cfg, arguments())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert not list(tmp_path.glob("*.pth*"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_before_takes_the_place_of_a_broken_one(kind, tmp_path, caplog):
    run(kind(tmp_path, length=3, period=1), arguments())
    for name in ("model_final.pth", "model_0000002.pth", "model_0000001.pth"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1000])
    (tmp_path / "model_0000001.pth").unlink()
    run(kind(tmp_path, length=3), arguments(resume=True))
    log = (tmp_path / "log.txt").read_text()
    assert "model_final.pth: truncated" in log and "on from model_0000002.pth instead" in log
    assert "model_0000002.pth: truncated" in log and "on from model_0000000.pth instead" in log
    assert "iterations  1 to 3" in log
    (tmp_path / "last_checkpoint").write_text("model_gone.pth")
    run(kind(tmp_path, length=4), arguments(resume=True))
    log = (tmp_path / "log.txt").read_text()
    assert "model_gone.pth'" in log and "on from model_final.pth instead" in log
    assert "iterations  3 to 4" in log
    for path in tmp_path.glob("model_*.pth"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"^--resume: .*/model_0000000.pth: an empty file"):
        run(kind(tmp_path, length=5), arguments(resume=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_another_model_is_not_resumed(kind, tmp_path):
    run(kind(tmp_path, length=1), arguments())
    shapes = r"\(8, 32, 1, 1\) there, \(8, 16, 1, 1\) here"
    message = rf"^--resume: .*model_final.pth: .*'sem_seg_head.predictor.weight' is {shapes}; start"
    with pytest.raises(UsageError, match=message) as error:
        run(kind(tmp_path, length=2, width=16), arguments(resume=True))
    assert "last_checkpoint" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_run_resumes_in_batches_of_its_size_only(kind, tmp_path):
    run(kind(tmp_path, length=1, batch=2, reference=4), arguments())
    with pytest.raises(UsageError, match=r"--resume: .*in batches of 2.* scaled to 4"):
        run(kind(tmp_path, length=4, batch=4, reference=4), arguments(resume=True))
    # Without a scaled schedule iterations are iterations.
    run(kind(tmp_path, length=3, batch=4, reference=0), arguments(resume=True))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (yaml_config, {"SOLVER__MAX_ITER": 0}, "SOLVER.MAX_ITER is 0: use a whole number of at"),
        (yaml_config, {"SOLVER__BASE_LR": 0.0}, "SOLVER.BASE_LR is 0.0: use a number above 0"),
        (yaml_config, {"SOLVER__BASE_LR": 1e-5}, "MIN_LR 0.0002 is above SOLVER.BASE_LR 1e-05"),
        (yaml_config, {"SOLVER__CHECKPOINT_PERIOD": 0}, "SOLVER.CHECKPOINT_PERIOD is 0"),
        (yaml_config, {"MODEL__DEVICE": "gpu"}, "MODEL.DEVICE is 'gpu': use a device"),
        (yaml_config, {"MODEL__RESNETS__NORM": "SynchBN"}, "MODEL.RESNETS.NORM is 'SynchBN'"),
        (yaml_config, {"MODEL__PIXEL_STD": "[0.0, 1.0, 1.0]"}, "PIXEL_STD is .*above 0"),
        (yaml_config, {"TEST__AUG__SCALES": "('a',)"}, "TEST.AUG.SCALES is"),
        (yaml_config, {"INPUT__RESIZE__BASE_SIZE": "('a', 'b')"}, "BASE_SIZE is .*two numbers"),
        (yaml_config, {"MODEL__SEM_SEG_HEAD__AUXILIARY__LOSS_WEIGHT": -1.0}, "AUXILIARY.LOSS_WEI"),
        (yaml_config, {"INPUT__CROP__SINGLE_CATEGORY_MAX_AREA": 2.0}, "MAX_AREA is 2.0: use a sh"),
        (lazy_config, {"train__max_iter": "abc"}, "train.max_iter is 'abc': use a whole number"),
        (lazy_config, {"train__max_iter": 2.5}, "train.max_iter is 2.5"),
        (lazy_config, {"train__accumulate": "two"}, "train.accumulate is 'two'"),
        (lazy_config, {"train__seed": "a"}, "train.seed is 'a'"),
        (lazy_config, {"train__checkpointer__period": 0}, "train.checkpointer.period is 0"),
        (lazy_config, {"dataloader__test__num_workers": "x"}, "dataloader.test.num_workers is 'x'"),
        (lazy_config, {"model__slide_window": 33}, "model.slide_window is 33: use two numbers"),
        (lazy_config, {"train__checkpointer__max_to_keep": -1}, "max_to_keep is -1: use a whole"),
        (lazy_config, {"train__init_checkpoint": "[a]"}, "train.init_checkpoint is"),
        (lazy_config, {"train__ddp": "x"}, "train.ddp is 'x': use keys with values"),
        (lazy_config, {f"+{SCALES}": "true"}, "test_augmentation is True: set .*enabled"),
        (lazy_config, {f"+{SCALES}.enabled": "x"}, "enabled is 'x': use true or false"),
        (lazy_config, {f"+{SCALES}.min_sizes": "64"}, "min_sizes is 64: use whole"),
        (lazy_config, {f"+{SCALES}.min_sizes": "[]"}, "min_sizes is .*: use whole"),
    ],
)
def test_values_that_cannot_be_meant_are_named_with_their_key(kind, options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        run(kind(tmp_path, **options), arguments())
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


def test_a_config_without_what_every_run_needs(tmp_path):
    cfg = lazy_config(tmp_path)
    del cfg.train
    with pytest.raises(UsageError, match=r"train is missing: start from configs"):
        run(cfg, arguments())


def test_weights_that_cannot_be_fetched(tmp_path):
    cfg = yaml_config(tmp_path, MODEL__WEIGHTS="http://localhost:9/x.pth")
    with pytest.raises(UsageError, match=r"cannot be fetched.*set MODEL.WEIGHTS to the file"):
        run(cfg, arguments())


def test_mistakes_show_no_traceback(tmp_path, capfd):
    cfg = yaml_config(tmp_path, MODEL__SEM_SEG_HEAD__NAME="NoHead")
    with pytest.raises(UsageError, match="NoHead"):
        run(cfg, arguments())
    out = capfd.readouterr()
    assert "Traceback" not in out.out + out.err
    for handler in logging.getLogger("dnl_d2").handlers:
        handler.flush()
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_an_error_in_other_words_is_told_in_these():
    with pytest.raises(UsageError, match="b; too many such"), explaining_failures():
        try:
            raise UsageError("b")
        except UsageError as error:
            raise UsageError(f"{error}; too many such") from error
