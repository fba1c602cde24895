"""``model_best.pth``: which figure decides, and that a resumed run knows the best one so far."""

import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from dnl_d2.checkpoint import Checkpointer, read_weights
from dnl_d2.engine.hooks import BestCheckpointer, best_checkpoint_hook

NAME = "best_weights_val"


@pytest.fixture
def dataset():
    DatasetCatalog.register(NAME, list)
    MetadataCatalog.get(NAME).evaluator_type = "coco"
    yield
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def run(dataset, tmp_path):
    """Returns ``run(start, figures...)``: evaluations from an iteration on with these figures."""
    model = torch.nn.Linear(1, 1, bias=False)

    def evaluate(start, *reported):
        hook = best_checkpoint_hook([NAME], 1, Checkpointer(model, str(tmp_path)))
        assert isinstance(hook, BestCheckpointer)
        latest = {}
        storage = SimpleNamespace(latest=lambda: latest)
        hook.trainer = SimpleNamespace(storage=storage, start_iter=start)
        hook.before_train()
        for iteration, figures in enumerate(reported, start):
            latest |= {key: (value, iteration) for key, value in figures.items()}
            model.weight.data.fill_(iteration)
            hook._best_checking()
        if not (tmp_path / "model_best.pth").exists():
            return None
        best = read_weights(tmp_path / "model_best.pth")
        assert best.state["weight"].item() == best.rest["iteration"]
        return best.rest["iteration"], best.rest["metric"], best.rest["figure"]

    return evaluate


@pytest.mark.parametrize(
    ("reported", "best"),
    [
        (
            [{"bbox/AP": 3.0, "segm/AP": 1.0}, {"bbox/AP": 2.0, "segm/AP": 2.0}],
            (1, "segm/AP", 2.0),
        ),
        ([{"bbox/AP": 3.0}, {"bbox/AP": 2.0}], (0, "bbox/AP", 3.0)),
        # Masks were found only then: their figure does not compete with that of boxes.
        ([{"bbox/AP": 3.0}, {"bbox/AP": 2.0, "segm/AP": 1.0}], (1, "segm/AP", 1.0)),
        ([{"bbox/AP": math.nan}], None),
        ([{"bbox/AR": 1.0}], None),
        ([{"bbox/AP": 2.0}, {"bbox/AP": 2.0}], (0, "bbox/AP", 2.0)),
    ],
    ids=["masks", "boxes", "masks later", "no number", "another figure", "as good"],
)
def test_the_figure_that_decides(run, reported, best):
    assert run(0, *reported) == best


def test_a_resumed_run_keeps_better_weights_of_before(run):
    assert run(0, {"segm/AP": 34.46}) == (0, "segm/AP", 34.46)
    assert run(2, {"segm/AP": 34.24}) == (0, "segm/AP", 34.46)
    assert run(3, {"segm/AP": 34.5}) == (3, "segm/AP", 34.5)


@pytest.mark.parametrize("content", [b"", b"broken", None])
def test_broken_best_weights_stop_no_run(run, tmp_path, caplog, content):
    run(0, {"segm/AP": 34.46})
    whole = (tmp_path / "model_best.pth").read_bytes()
    (tmp_path / "model_best.pth").write_bytes(whole[:-900] if content is None else content)
    assert run(2, {"segm/AP": 3.0}) == (2, "segm/AP", 3.0)
    assert f"{tmp_path}/model_best.pth: " in caplog.text and "take its place" in caplog.text


def test_a_new_run_does_not_ask_what_lies_there(run):
    run(0, {"segm/AP": 34.46})
    assert run(0, {"segm/AP": 3.0}) == (0, "segm/AP", 3.0)


@pytest.mark.parametrize("metric", ["segm/AP", "bbox/AP"])
def test_figures_in_checkpoints_of_earlier_versions_count(dataset, tmp_path, metric):
    checkpointer = Checkpointer(torch.nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_best", iteration=1)
    before = (tmp_path / "model_best.pth").read_bytes()
    hook = best_checkpoint_hook([NAME], 1, checkpointer)
    hook.load_state_dict({"best_metric": 3.0, "best_iter": 1})
    latest = {metric: (2.0, 5)}
    storage = SimpleNamespace(latest=lambda: latest)
    hook.trainer = SimpleNamespace(storage=storage, start_iter=5)
    hook.before_train()
    hook._best_checking()
    assert (tmp_path / "model_best.pth").read_bytes() == before


def test_classification_is_judged_by_top1():
    name = "best_weights_classified"
    MetadataCatalog.get(name).evaluator_type = "classification"
    hook = best_checkpoint_hook([name], 1, Checkpointer(torch.nn.Linear(1, 1)))
    MetadataCatalog.remove(name)
    assert hook._metrics == ("classification/top1",)
