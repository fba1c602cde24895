"""cuDNN's choice of algorithms: by trial for crops of one size, not for test pictures."""

import pytest
import torch

from dnl_d2.engine import run
from dnl_d2.engine.environment import many_sizes
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
KINDS = [(yaml_config, "CUDNN_BENCHMARK"), (lazy_config, "train__cudnn_benchmark")]


@pytest.fixture
def seen(monkeypatch):
    """By mode of the model, what the setting was in its forward passes."""
    seen, forward = {True: set(), False: set()}, ContextSegmentor.forward

    def noting(self, inputs):
        seen[self.training].add(torch.backends.cudnn.benchmark)
        return forward(self, inputs)

    monkeypatch.setattr(ContextSegmentor, "forward", noting)
    return seen


@pytest.mark.parametrize(("kind", "key"), KINDS)
def test_crops_are_tried_and_test_pictures_are_not(kind, key, tmp_path, seen):
    run(kind(tmp_path, length=2, eval_period=1), arguments())
    assert seen == {True: {True}, False: {False}}


@pytest.mark.parametrize(("kind", "key"), KINDS)
def test_it_can_be_turned_off(kind, key, tmp_path, seen):
    run(kind(tmp_path, length=1, **{key: False}), arguments())
    assert seen == {True: {False}, False: {False}}


def test_a_lazyconfig_takes_true_or_false(tmp_path):
    with pytest.raises(UsageError, match=r"train\.cudnn_benchmark is 'yes'"):
        run(lazy_config(tmp_path, train__cudnn_benchmark="yes"), arguments())


def test_the_setting_comes_back_after_a_failure(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with pytest.raises(ZeroDivisionError), many_sizes():
        assert not torch.backends.cudnn.benchmark
        _ = 1 / 0
    assert torch.backends.cudnn.benchmark
