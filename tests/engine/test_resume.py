"""A run that is interrupted and resumed is the run that it would have been, to the last bit."""

import contextlib
import os
import resource
import signal
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import nn

from dnl_d2.checkpoint import Checkpointer
from dnl_d2.checkpoint.run_checkpoints import numbered
from dnl_d2.data.stream import TrainingStream
from dnl_d2.engine import Trainer, run
from dnl_d2.engine.folder_lock import only_run_in
from dnl_d2.engine.resume import DataState
from dnl_d2.engine.resume_hooks import PeriodicCheckpointer
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.reporting.curves import read_metrics
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401
from tests.processes import leave

ROUTINE = {"length": 6, "period": 2, "eval_period": 3, "rate": 0.1}


class Killed(Exception):
    """What ends a run at once."""


@contextlib.contextmanager
def watched(*, training=10**9, testing=10**9):
    """Yields a list of the losses of each forward pass.

    Args:
        training, testing: so many passes are allowed.
    """
    losses, tested = [], []

    def note(module, inputs, output):
        if not isinstance(module, ContextSegmentor):
            return
        if len(losses) == training or len(tested) == testing:
            raise Killed
        if module.training:
            losses.append({name: loss.item() for name, loss in output.items()})
        else:
            tested.append(output)

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        yield losses
    finally:
        hook.remove()


def train(config, *, resume=False, by=run, **limits):
    """The losses of a run, which limits may end."""
    with watched(**limits) as losses, contextlib.suppress(Killed):
        by(config, arguments(resume=resume))
    return losses


def by_trainer(config, args):
    torch.manual_seed(1)  # of the initial weights
    trainer = Trainer(config)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=False)


def assert_same_weights(one, other):
    one, other = final(one)["model"], final(other)["model"]
    assert one.keys() == other.keys()
    assert not [key for key in one if not torch.equal(one[key], other[key])]


def figures(folder):
    series = read_metrics(str(folder / "metrics.json"))
    return {name: values for name, values in series.items() if name.startswith("sem_seg/")}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("kind", "by", "options"),
    [
        (yaml_config, run, {"DATALOADER__NUM_WORKERS": 2, "parts": 2}),
        (yaml_config, by_trainer, {"TEST__PRECISE_BN__ENABLED": True}),
        (lazy_config, run, {"parts": 2, "eval_period": 2}),
    ],
    ids=["yaml", "trainer", "lazy"],
)
def test_a_run_that_is_ended_in_training_and_in_an_evaluation(kind, by, options, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = {"train__log_period": 1}  # all figures are noted
    if kind is yaml_config:
        more = {"SOLVER__LOG_PERIOD": 1, "TEST__PRECISE_BN__NUM_ITER": 1}
    options = ROUTINE | more | options
    passes = options.get("parts", 1)
    expected = train(kind(whole, **options), by=by)
    # Of iterations 0 to 5, and of what PreciseBN sees after 2 and 5. The second time the run ends
    # in an evaluation: of the iteration that the last checkpoint is of, if their periods are one.
    first = train(kind(broken, **options), by=by, training=3 * passes - 1)
    second = train(kind(broken, **options), by=by, resume=True, testing=2)
    last = train(kind(broken, **options), by=by, resume=True)
    assert first == expected[: 3 * passes - 1]
    again = 2 * passes
    assert second == expected[again : again + len(second)] and len(second) >= passes
    assert last == expected[-len(last) :] and len(last) < len(expected)
    assert_same_weights(broken, whole)
    assert figures(broken) == figures(whole) and len(figures(whole)["sem_seg/mIoU"][0]) > 1
    best = [torch.load(folder / "model_best.pth")["iteration"] for folder in (whole, broken)]
    assert best[0] == best[1]


@pytest.mark.usefixtures("environment")
def test_a_run_without_a_seed_keeps_the_one_it_drew(tmp_path):
    """A checkpoint that has none is of an earlier version."""
    initial = tmp_path / "initial"
    run(yaml_config(initial, length=1), arguments())
    options = {"length": 3, "period": 1, "weights": initial / "model_final.pth", "SEED": -1}
    expected = train(yaml_config(tmp_path / "run", **options))
    checkpoint = torch.load(tmp_path / "run" / "model_0000000.pth", weights_only=False)
    for earlier, seed, said in (
        (True, -1, "which noted no seed"),
        (False, 5, "the run goes on with its own seed"),
        (False, -1, None),
    ):
        folder = tmp_path / f"{earlier}{seed}"
        folder.mkdir()
        state = dict(checkpoint["trainer"])
        if earlier:
            del state["data"]
        torch.save({**checkpoint, "trainer": state}, folder / "model_0000000.pth")
        losses = train(yaml_config(folder, **options | {"SEED": seed}), resume=True)
        assert (losses == expected[1:]) != earlier
        log = (folder / "log.txt").read_text()
        assert said in log if said else "not to the last bit" not in log


@pytest.mark.usefixtures("environment")
def test_the_loader_of_another_seed_pins_its_memory_too(tmp_path, monkeypatch):
    pinned = []
    monkeypatch.setattr("dnl_d2.engine.training.pin_memory", lambda *args: pinned.append(args))
    trainer = Trainer(yaml_config(tmp_path))
    trainer._trainer.data_loader.reseeded(3)
    assert len(pinned) == 2 and pinned[0][0] is not pinned[1][0]


def loop(batch_size, seed=1):
    stream = TrainingStream(lambda: [1, 2, 3], seed=seed, batch_size=batch_size)
    step = SimpleNamespace(data_loader=stream)
    step.reset_data_loader = lambda build: vars(step).update(data_loader=build())
    return step


def test_other_batches_go_on_at_the_same_number_of_pictures(caplog):
    before = DataState(loop(4), seeded=True)
    before.go_on(0, {})
    caplog.clear()
    step = loop(2)
    smaller = DataState(step, seeded=True)
    smaller.go_on(10, before.state_dict())
    assert step.data_loader.start == 20  # and 40 pictures before it, in iteration 10
    assert "batch size 4 -> 2, processes 1 -> 1, images 3 -> 3" in caplog.text
    caplog.clear()
    again = DataState(loop(2), seeded=True)
    again.go_on(13, smaller.state_dict())
    assert again._step.data_loader.start == 23 and not caplog.records
    larger = DataState(loop(8), seeded=True)
    larger.go_on(15, again.state_dict())
    assert larger._step.data_loader.start == (15 + 10) * 2 // 8
    replaced = DataState(SimpleNamespace(data_loader=[]), seeded=True)
    replaced.go_on(1, again.state_dict())
    assert replaced.state_dict() == {}


@pytest.mark.parametrize("main", [True, False])
def test_all_processes_of_a_training_are_refused(main, tmp_path, monkeypatch):
    """None writes its log into the folder of the other."""
    told = []
    monkeypatch.setattr(comm, "is_main_process", lambda: main)
    monkeypatch.setattr(comm, "all_gather", lambda text: [told.append(text) or "the first's"])
    folder = tmp_path / "file" if main else tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the first's"), only_run_in(str(folder), key="X"):
        pass
    assert bool(told[0]) == main and os.listdir(tmp_path) == ["file"]


def test_a_folder_is_trained_in_once_at_a_time(tmp_path):
    """The lock ends with its process, also if that is killed, and not before."""
    (tmp_path / "model_0000001.pth.7-7.unfinished").write_bytes(b"half")
    read, write = os.pipe()
    holder = os.fork()
    if holder == 0:
        with only_run_in(str(tmp_path), key="OUTPUT_DIR"):
            os.write(write, b"held")
            signal.pause()
    assert os.read(read, 4) == b"held"
    message = rf"OUTPUT_DIR {tmp_path}: another training .*process {holder} on"
    with pytest.raises(UsageError, match=message), only_run_in(str(tmp_path), key="OUTPUT_DIR"):
        pass
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with only_run_in(str(tmp_path), key="OUTPUT_DIR"):
        assert os.listdir(tmp_path) == ["run.lock"]


def test_a_full_disk_takes_no_lock_away(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with only_run_in(str(tmp_path), key="OUTPUT_DIR"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "run.lock").read_text() == ""


def test_checkpoints_from_before_an_interruption_are_deleted_in_their_turn(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    for iteration in (1, 3, 5, 9):  # the last one cannot be read, say
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    hook = PeriodicCheckpointer(checkpointer, period=2, max_to_keep=2)
    hook.trainer = SimpleNamespace(start_iter=6, max_iter=12, iter=7)
    for step, kept in ((hook.before_train, [3, 5, 9]), (hook.after_step, [5, 7, 9])):
        step()
        assert [iteration for iteration, _ in numbered(str(tmp_path))] == kept
    hook.max_to_keep = None
    hook.before_train()
    assert [iteration for iteration, _ in numbered(str(tmp_path))] == [5, 7, 9]


def test_a_run_that_was_killed_before_its_final_checkpoint_writes_it(tmp_path):
    checkpointer = Checkpointer(nn.Linear(1, 1), str(tmp_path))
    hook = PeriodicCheckpointer(checkpointer, period=2)
    checkpointer.save("model_final", iteration=1)  # of a shorter run
    checkpointer.save("model_0000003", iteration=3)
    for written in (True, False):
        hook.trainer = SimpleNamespace(start_iter=4, max_iter=4, iter=4)
        hook.before_train()
        assert torch.load(tmp_path / "model_final.pth")["iteration"] == 3
        assert hook.trainer.iter == (3 if written else 4)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_a_diverged_model_is_not_saved(tmp_path):
    model = nn.Linear(2, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001")
    model.weight.data[0, 0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"0003.pth is not written, as 1 of 2 .*'weight'"):
        checkpointer.save("model_0000003")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


def train_in_a_process(folder):
    kwargs = {"length": 4, "period": 2, "batch": 4, "parts": 2}
    limits = {"broken-1": {"training": 3 * 2 - 1}}
    for name in ("whole", "broken-1", "broken"):
        target = folder / name.partition("-")[0]
        with watched(**limits.get(name, {})) as losses, contextlib.suppress(Killed):
            run(lazy_config(target, **kwargs), arguments(resume=name == "broken"))
        torch.save(losses, folder / f"{name}-losses{torch.distributed.get_rank()}.pth")
    leave()


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_two_processes_go_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(train_in_a_process, 2, dist_url="auto", args=(tmp_path,))
    for rank in range(2):
        whole, broken = (
            torch.load(tmp_path / f"{n}-losses{rank}.pth") for n in ("whole", "broken")
        )
        assert broken == whole[4:] and len(whole) == 8
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
