"""Where numbers that are not finite come from."""

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from dnl_d2.engine.nonfinite.batch import TrainedBatch
from dnl_d2.engine.nonfinite.examine import examine
from dnl_d2.engine.nonfinite.finding import first_cause
from dnl_d2.layers.sync_batch_norm import CPUSyncBatchNorm


class Infinite(nn.Module):
    """Makes what is not finite, in one of the two passes."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, x):
        return x * torch.inf if self.where == "forward" else BadGradient.apply(x)


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


class Network(nn.Module):
    """Has a function of its own between two layers, an in-place one behind them, and dropout."""

    def __init__(self, middle=None, own=None):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Linear(4, 4), middle or nn.Identity(), nn.ReLU(inplace=True))
        self.last = nn.Linear(4, 1)
        self.own = own
        self.seen = []

    def forward(self, records):
        self.seen.append(len(records))
        x = self.block(self.first(torch.stack([record["image"] for record in records])))
        x = nn.functional.dropout(x + 1)
        if self.own == "forward":
            x = x / 0
        if self.own == "backward":
            x = BadGradient.apply(x)
        return {"loss": self.last(x).square().mean()}


def records(count=4):
    torch.manual_seed(0)
    return [{"image": torch.randn(4), "file_name": f"{n}.png"} for n in range(count)]


def cause_in(network, batch=None, **options):
    torch.manual_seed(1)
    found = examine(network.train(), TrainedBatch(batch or records(), 7, **options))
    return first_cause(found), found


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_module_that_made_it_is_named(where):
    cause, found = cause_in(Network(Infinite(where)))
    assert (cause.name, cause.kind, cause.count) == ("block.1", "Infinite", 16)
    assert cause.what == {"forward": "output", "backward": "gradient"}[where]
    assert cause.made_here and len(found) > 3
    behind = {"forward": "last", "backward": "first.0.weight"}[where]
    assert behind in [f.name for f in found if not f.made_here]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_a_module_makes_between_its_own_is_its_own(where):
    cause, found = cause_in(Network(own=where))
    assert (cause.name, cause.kind) == ("", "Network") and cause.made_here
    assert "the model (Network)" in str(cause)
    assert {f.made_here for f in found if f.name == "last" or f.name.startswith("block")} == {False}


def test_inputs_and_weights_come_before_what_is_computed_from_them():
    batch = records()
    batch[2]["image"][1] = torch.nan
    cause, found = cause_in(Network(Infinite("forward")), batch)
    assert [f.what for f in found] == ["input"]
    assert str(cause) == "input of image of 2.png, 1 of 4 values"
    network = Network()
    network.last.weight.data[0, :3] = torch.tensor([torch.inf, -2.0, 0.5])
    cause, found = cause_in(network)
    assert str(cause) == "weight of last.weight, 1 of 4 values" and len(found) == 1
    assert cause.low == -2.0 and 0.5 <= cause.high <= 1.0  # the fourth is drawn


def test_boxes_are_looked_at_too():
    boxes = Boxes(torch.tensor([[0.0, 0.0, torch.nan, 1.0]]))
    batch = [{"instances": Instances((4, 4), gt_boxes=boxes)}]
    cause, _ = cause_in(Network(), batch)
    assert cause.what == "input" and cause.count == 1


def test_a_statistic_that_overflows_though_its_output_does_not():
    network = Network()
    network.first[0].weight.data *= 1e30
    cause, _ = cause_in(network)
    assert (cause.what, cause.name) == ("statistic", "first.1.running_var")


def test_of_a_sound_step_nothing_is_found_or_changed():
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.last.weight.grad = torch.ones(1, 4)
    assert cause_in(network, records(6), parts=3) == (None, [])
    assert network.seen == [2, 2, 2]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.last.weight.grad.tolist() == [[1.0] * 4] and network.first[0].weight.grad is None
    hooked = [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked


def test_random_numbers_are_those_of_the_step():
    class Rare(nn.Module):
        def forward(self, x):
            drawn.append(torch.rand(()).item())
            get_event_storage().put_scalar("drawn", drawn[-1])
            return x

    drawn = []
    with EventStorage() as storage:
        for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4)):
            cause_in(Network(Rare()), random_key=key)
    assert not storage.latest()  # detectors log in their forward pass
    assert drawn[0] == drawn[1] != drawn[2]


class NaiveSyncOfVectors(NaiveSyncBatchNorm):
    def _check_input_dim(self, x):
        pass


@pytest.mark.parametrize("norm", [nn.SyncBatchNorm, CPUSyncBatchNorm, NaiveSyncOfVectors])
def test_synchronised_norms_wait_for_nobody(monkeypatch, norm):
    """Which without a group they refuse to do in any case."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    network = Network()
    network.first[1] = norm(4)
    network.first[1].process_group = "of processes that are gone"
    cause, _ = cause_in(network)
    assert cause is None and "forward" not in vars(network.first[1])


@pytest.mark.parametrize(
    ("count", "text"), [(2, "0.png, 1.png"), (6, "0.png, 1.png, 2.png, 3.png and 2 more")]
)
def test_four_files_are_named(count, text):
    assert TrainedBatch(records(count), 0).files() == text


def test_batches_without_files():
    assert TrainedBatch(torch.ones(2), 0).files() == TrainedBatch([{}], 0).files() == ""
