"""A run that is interrupted and resumed is the run that it would have been, to the last bit."""

import contextlib

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN

from dnl_d2.engine import run
from dnl_d2.modeling import ContextSegmentor
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
ROUTINE = {"length": 6, "period": 2, "batch": 2}


class Killed(Exception):
    """What ends a run in the middle of an iteration."""


@contextlib.contextmanager
def watched(*, until=10**9):
    """Yields a list of the losses of each forward pass, of which so many are allowed."""
    losses = []

    def note(module, inputs, output):
        if isinstance(module, ContextSegmentor | GeneralizedRCNN) and module.training:
            if len(losses) == until:
                raise Killed
            losses.append({name: loss.item() for name, loss in output.items()})

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        yield losses
    finally:
        hook.remove()


def train(kind, folder, *, resume=False, until=10**9, **options):
    """The losses of a run, which ends after ``until`` forward passes."""
    with watched(until=until) as losses, contextlib.suppress(Killed):
        run(kind(folder, **options), arguments(resume=resume))
    return losses


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=False)["model"]


def assert_same_weights(one, other):
    one, other = final(one), final(other)
    assert one.keys() == other.keys()
    assert not [key for key in one if not torch.equal(one[key], other[key])]


@pytest.mark.parametrize(
    ("kind", "workers", "more"),
    [
        (yaml_config, 0, {"parts": 2, "SEED": 3}),
        (yaml_config, 2, {}),
        (lazy_config, 0, {"train__seed": 3}),
        (lazy_config, 3, {"parts": 2}),
    ],
)
def test_losses_and_weights_of_an_interrupted_run_are_those_of_a_whole_one(
    kind, workers, more, tmp_path
):
    key = "DATALOADER__NUM_WORKERS" if kind is yaml_config else "dataloader__train__num_workers"
    options = ROUTINE | more | {key: workers}
    parts = options.get("parts", 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ends = (3 * parts, 2 * parts + 1)  # within iterations 3 and 4
    first = train(kind, broken, until=ends[0], **options)
    seed = torch.load(broken / "model_0000001.pth")["trainer"]["data"]["seed"]
    second = train(kind, broken, until=ends[1], resume=True, **options)
    last = train(kind, broken, resume=True, **options)
    expected = train(kind, whole, **options | {_seed(kind): seed})
    assert first == expected[: ends[0]]
    assert second == expected[2 * parts :][: ends[1]]
    assert last == expected[4 * parts :]
    assert_same_weights(broken, whole)


def _seed(kind):
    return "SEED" if kind is yaml_config else "train__seed"
