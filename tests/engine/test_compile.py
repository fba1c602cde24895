"""Runs that train a compiled model, in both config systems."""

import pytest
import torch

from dnl_d2.engine import Trainer, run
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_training
from dnl_d2.errors import UsageError
from dnl_d2.modeling import compilation
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")
KINDS = [(yaml_config, "SOLVER__COMPILE"), (lazy_config, "train__compile")]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Compiled without a compiler, and no graph of an earlier test."""
    monkeypatch.setattr(compilation, "_BACKEND", "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize(("kind", "key"), KINDS)
@pytest.mark.parametrize("wanted", [True, False])
def test_both_config_systems_ask_for_it(kind, key, wanted, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **_: tried.append(part))
    spec = read_config(kind(tmp_path, **{key: wanted}), train=True)
    model = build_training(spec)[0].model
    assert tried == ([model.backbone, model.sem_seg_head] if wanted else [])


@pytest.mark.parametrize(("kind", "key"), KINDS)
def test_a_machine_that_cannot_compile_ends_the_run_in_a_line(kind, key, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "_BACKEND", "not_installed")
    with pytest.raises(UsageError, match=key.replace("__", r"\.") + ": torch.compile does not"):
        run(kind(tmp_path, **{key: True}), arguments())


def test_training_evaluation_and_resuming_are_those_of_an_eager_run(tmp_path):
    """In parts of a batch, too, and with mixed precision."""
    options = dict(length=2, batch=4, parts=2, eval_period=2, SEED=1, SOLVER__LOG_PERIOD=1)
    options |= {"SOLVER__AMP__ENABLED": True, "SOLVER__CHECKPOINT_PERIOD": 1}
    weights, figures = {}, {}
    for wanted in (True, False):
        folder = tmp_path / str(wanted)
        cfg = yaml_config(folder, SOLVER__COMPILE=wanted, **options)
        torch.manual_seed(1)
        figures[wanted] = run(cfg, arguments())["sem_seg"]
        stored = torch.load(folder / "model_final.pth", weights_only=False)
        weights[wanted] = stored["model"]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3  # with the one tried
    assert list(weights[True]) == list(weights[False])
    for key, value in weights[True].items():
        torch.testing.assert_close(value, weights[False][key], rtol=1e-3, atol=1e-4)
    assert figures[True] == pytest.approx(figures[False], nan_ok=True)
    more = yaml_config(tmp_path / "True", SOLVER__COMPILE=False, **options | {"length": 3})
    trainer = Trainer(more)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    trainer.train()
