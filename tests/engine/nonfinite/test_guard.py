"""A run whose numbers stop being finite says where, keeps the step, and ends or leaves it out."""

import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm
from torch import nn

from dnl_d2.engine import run
from dnl_d2.engine.early_losses import PlainTrainer
from dnl_d2.engine.failures import explaining_failures
from dnl_d2.engine.nonfinite.guard import NonFiniteStep, NumbersGuard
from dnl_d2.engine.nonfinite.replay import replay
from dnl_d2.engine.nonfinite.repro_file import read_repro
from dnl_d2.engine.optimizer import fuse
from dnl_d2.engine.resume import DataState, LoopState
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.reporting.curves import read_metrics
from tests.engine.nonfinite.test_examine import BadGradient
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401
from tests.engine.test_waiting import Waits
from tests.processes import leave

KINDS = [yaml_config, lazy_config]
SKIP = {yaml_config: "SOLVER__SKIP_NONFINITE", lazy_config: "train__skip_nonfinite"}
MODULE = "backbone.res2.1.conv1"


@pytest.fixture
def poisoned(monkeypatch):
    """Has a convolution fail for one picture; gives a list of the losses of each pass.

    ``forward`` makes its output infinite, ``backward`` the gradient of its input NaN.
    """
    losses, plain = [], ContextSegmentor.forward

    def poison(where, picture="00007.png"):
        def forward(self, records):
            module = self.get_submodule(MODULE)
            bad = any(record["file_name"].endswith(picture) for record in records)
            if bad and self.training:
                module.forward = lambda x: spoil(type(module).forward(module, x))
            try:
                losses.append(plain(self, records))
            finally:
                vars(module).pop("forward", None)
            return losses[-1]

        def spoil(x):
            return x * torch.inf if where == "forward" else BadGradient.apply(x)

        monkeypatch.setattr(ContextSegmentor, "forward", forward)
        return losses

    return poison


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_run_ends_and_the_step_can_be_replayed(kind, where, tmp_path, poisoned):
    losses = poisoned(where)
    what = {"forward": "output", "backward": "gradient"}[where]
    with pytest.raises(UsageError) as error:
        run(kind(tmp_path, length=9, period=1, batch=2), arguments())
    (path,) = tmp_path.glob("nonfinite-*.pth")
    iteration, message = int(path.stem.rpartition("-")[2]), str(error.value)
    assert message.startswith(f"training diverged: iteration {iteration}: ")
    assert f"; first not finite: {what} of {MODULE} (Conv2d), " in message and "\n" not in message
    assert "/00007.png" in message and f"tools/replay_step.py {path} " in message
    repro = read_repro(str(path))
    names = [record["file_name"] for record in repro.batch.inputs]
    assert len(names) == 2 and all(name in message for name in names)
    if where == "backward":  # dropout drew the same numbers
        assert losses[-1] == losses[-2] != losses[-3]
    checkpoints = sorted(tmp_path.glob("model_*.pth"))
    assert len(checkpoints) == iteration > 0
    before = torch.load(checkpoints[-1])["model"]
    assert before.keys() == repro.state.keys()
    assert all(torch.equal(value, repro.state[name]) for name, value in before.items())
    told = replay(str(path), trust_config=True, rows=3)
    assert f"->  {what}" in told and f"{MODULE} Conv2d" in told and "more" in told
    assert f"iteration {iteration}, " in told and "\n  pictures  " in told


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_left_out_where_asked_for(kind, tmp_path, poisoned):
    poisoned("forward")
    run(kind(tmp_path, length=9, batch=2, eval_period=0, **{SKIP[kind]: 1}), arguments())
    log = (tmp_path / "log.txt").read_text()
    key = SKIP[kind].replace("__", ".")
    said = log.count(f"the step is left out, 1 in a row of 1 allowed by {key}")
    assert said >= 2 and not list(tmp_path.glob("nonfinite*"))
    state = torch.load(tmp_path / "model_final.pth")["model"]
    assert all(value.isfinite().all() for value in state.values())
    totals = read_metrics(str(tmp_path / "metrics.json"))["total_loss"][1]
    assert len(totals) and all(total < 100 for total in totals)
    poisoned("forward", picture=".png")
    with pytest.raises(UsageError, match=r"once more; the 1 steps before it were left out; lo"):
        run(kind(tmp_path / "all", length=9, batch=2, **{SKIP[kind]: 1}), arguments())
    assert [path.name for path in (tmp_path / "all").glob("*.pth")] == ["nonfinite-0000001.pth"]


class Line(nn.Module):
    """Its loss is that of a number in each record; ``refuse`` raises as Detectron2's RPN does."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, records):
        value = records[0]["value"]
        if value == "refuse":
            raise FloatingPointError("Predicted boxes contain Inf/NaN. Training has diverged.")
        self.norm(torch.tensor([[1.0], [2.0]]))
        loss = self.weight * 1.0
        if value == "gradient":
            loss = BadGradient.apply(loss)
        if value == "loss":
            loss = loss * torch.inf
        return {"loss": loss}


def trained(values, folder, *, skip=0, late=False, processes=1):
    """The trainer and the model of steps on records of these values."""
    spec = SimpleNamespace(
        accumulate=1, skip_nonfinite=skip, device="cpu", max_iter=len(values), config={},
        output_dir=str(folder), keys=SimpleNamespace(skip_nonfinite="SKIP"),
    )  # fmt: skip
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9)
    fuse(optimizer, scaled=False)
    batches = [[{"value": value, "file_name": f"{n}.png"}] for n, value in enumerate(values)]
    parallel = model
    if processes > 1:
        parallel = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    step = PlainTrainer(parallel, batches, optimizer)
    step.guard = NumbersGuard(spec, model, optimizer, scaler=None, dtype=None)
    step.guard.reads_late = late
    return step, model


def test_a_gradient_that_is_read_late_has_changed_nothing(tmp_path):
    step, model = trained(["", "gradient", "", ""], tmp_path, late=True)
    with pytest.raises(NonFiniteStep, match=r"iteration 1: gradients .*pictures 1.png; tools") as e:
        step.train(0, 4)
    assert "gradient of the model (Line), 1 of 1 values" in str(e.value)
    assert step.iter == 2 and model.weight.item() == 0.75  # after one step
    assert (tmp_path / "nonfinite-0000001.pth").is_file()


def test_the_first_step_that_is_left_out_late_leaves_no_momentum(tmp_path):
    step, model = trained(["gradient", ""], tmp_path, late=True)
    with pytest.raises(NonFiniteStep):
        step.train(0, 2)
    assert model.weight.item() == 1.0
    assert step.optimizer.state[model.weight]["momentum_buffer"].item() == 0.0


def test_the_last_step_is_waited_for(tmp_path):
    step, model = trained(["", "gradient"], tmp_path, late=True)
    with pytest.raises(NonFiniteStep, match="iteration 1: gradients"):
        step.train(0, 2)
    assert model.weight.item() == 0.75


@pytest.mark.parametrize("value", ["loss", "gradient", "refuse"])
def test_a_step_that_is_left_out_leaves_no_trace(value, tmp_path, caplog):
    plain, model = trained(["", ""], tmp_path)
    plain.train(0, 2)
    step, other = trained(["", value, ""], tmp_path, skip=1)
    with caplog.at_level(logging.WARNING):
        step.train(0, 3)
    states = model.state_dict(), other.state_dict()
    assert states[0]["norm.running_mean"] != 0
    for name, one in states[0].items():
        assert torch.equal(one, states[1][name]), name
    assert "pictures 1.png: the step is left out, 1 in a row of 1 allowed by SKIP" in caplog.text
    assert not any(tmp_path.iterdir())
    ending, _ = trained(["", value], tmp_path)
    message = r"^training diverged: iteration 1: .*; pictures 1.png; tools/.* once more; lower the"
    with pytest.raises(UsageError, match=message), explaining_failures():
        ending.train(0, 2)
    again, _ = trained(["", value, "", value, value], tmp_path, skip=1)
    with pytest.raises(NonFiniteStep, match=r"^iteration 4: .*the 1 steps before it"):
        again.train(0, 5)


def test_steps_that_were_left_out_count_in_the_run_that_goes_on(tmp_path):
    def state_of(step):
        data = DataState(step, seeded=True)
        return LoopState(step, nested=False, data=data, guard=step.guard)

    step, _ = trained(["", "loss"], tmp_path, skip=2)
    step.train(0, 2)
    later, _ = trained(["loss"] * 4, tmp_path, skip=2)
    state_of(later).load_state_dict(state_of(step).state_dict())
    with pytest.raises(NonFiniteStep, match="iteration 3: "):
        later.train(2, 4)
    earlier = {k: v for k, v in state_of(step).state_dict().items() if k != "left_out_in_a_row"}
    state_of(step).load_state_dict(earlier)
    assert step.guard.in_a_row == 0


def test_what_is_known_is_told_where_nothing_can_be_written(tmp_path):
    step, _ = trained(["loss"], tmp_path / "no" / "folder")
    with pytest.raises(NonFiniteStep, match=r"loss is inf; .*0.png; .*0.pth: cannot be written \("):
        step.train(0, 1)


def test_a_step_that_cannot_be_computed_again(tmp_path):
    step, model = trained(["loss"], tmp_path)
    plain = model.forward
    model.forward = lambda x: plain(x) | (vars(model).update(forward=lambda _: 1 / 0) or {})
    with pytest.raises(NonFiniteStep, match=r"could not be found \(ZeroDivisionError: division"):
        step.train(0, 1)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_loss_scale_that_keeps_falling_is_no_longer_legitimate(scale, tmp_path):
    step, _ = trained(["", ""], tmp_path)
    step.guard._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    if scale > 1:
        step.train(0, 2)
    else:
        with pytest.raises(NonFiniteStep, match="iteration 0: the loss scale has fallen below 1"):
            step.train(0, 2)


def disagree(folder):
    """One process of two has a loss that is not finite, in steps 1 and 3, 4."""
    rank = comm.get_rank()
    values = [["", "loss", "", "", "loss"], ["", "", "", "gradient", ""]][rank]
    step, model = trained(values, folder, skip=1, processes=2)
    try:
        step.train(0, 5)
    except NonFiniteStep as error:
        (folder / f"{rank}.txt").write_text(f"{step.iter} {model.weight.item():.3f} {error}")
    leave()


@pytest.mark.slow
def test_processes_decide_together(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(disagree, 2, dist_url="auto", args=(tmp_path,))
    told = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0].startswith("4 0.275 iteration 4 in process 0: loss is inf; first")
    assert [path.name for path in tmp_path.glob("*.pth")] == ["nonfinite-0000004-process0.pth"]


def test_reading_late_asks_for_no_number(tmp_path):
    for late in (True, False):
        step, model = trained([""], tmp_path, late=late)
        step.guard.begin(step.data_loader[0], -1, ())
        model(step.data_loader[0])["loss"].backward()
        with Waits() as counted:
            assert step.guard._check_norm() == ""
        assert bool(counted.found) != late
