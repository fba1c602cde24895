"""What runs of both config systems, and of Trainer, leave to look at."""

import json
import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dnl_d2.checkpoint import read_weights
from dnl_d2.engine import Trainer, load_config, run
from dnl_d2.engine.environment import set_up
from dnl_d2.engine.output_folder import clear
from dnl_d2.engine.reports import with_own_writers
from dnl_d2.engine.spec import WandbOptions
from dnl_d2.errors import UsageError
from tests.engine.runs import (  # noqa: F401
    SMALL_DETECTOR,
    arguments,
    as_yaml,
    environment,
    lazy_config,
    pictures,
    yaml_config,
)

pytestmark = pytest.mark.usefixtures("environment")
DETECTOR = "configs/generated/mask_rcnn_r18w32_fpn_gc_r4_c3-c5_300_generated-instances.yaml"
WORDS = {
    yaml_config: {"SOLVER__LOG_PERIOD": 1, "TEST__EVAL_PICTURES": 2},
    lazy_config: {"train__log_period": 1, "train__eval_pictures": 2},
}


def shown(folder):
    """Iterations of the pictures in TensorBoard's files, by name."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: [e.step for e in events.Images(tag)] for tag in events.Tags()["images"]}


def through_trainer(cfg, args):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


@pytest.mark.parametrize(
    ("kind", "train"),
    [(lazy_config, run), (yaml_config, through_trainer)],
    ids=["run", "Trainer"],
)
def test_the_folder_tells_of_a_run_and_its_resumption(kind, train, tmp_path):
    train(kind(tmp_path, length=2, **WORDS[kind]), arguments())
    first = (tmp_path / "curves.png").read_bytes()
    assert shown(tmp_path) == {f"generated_sem_seg_val/{n}": [2] for n in ("00000", "00002")}
    train(kind(tmp_path, length=3, **WORDS[kind]), arguments(resume=True))
    assert (tmp_path / "curves.png").read_bytes() != first
    assert shown(tmp_path) == {f"generated_sem_seg_val/{n}": [2, 3] for n in ("00000", "00002")}
    one, two = json.loads((tmp_path / "run.json").read_text())
    assert (one["kind"], one["from_iteration"], one["reached_iteration"]) == ("training", 0, 2)
    assert (two["from_iteration"], two["reached_iteration"]) == (2, 3)
    assert one["finished"] and two["finished"] and one["started"] <= two["started"]


def test_an_evaluation_is_noted(tmp_path):
    run(yaml_config(tmp_path, length=1), arguments())
    assert shown(tmp_path) == {} and not (tmp_path / "curves.png").exists()  # a single loss
    weights = str(tmp_path / "model_final.pth")
    run(yaml_config(tmp_path, weights=weights), arguments(eval_only=True))
    _, entry = json.loads((tmp_path / "run.json").read_text())
    assert (entry["kind"], entry["weights"]) == ("evaluation", weights) and "ended" in entry


def test_pictures_change_nothing(root, tmp_path, pictures, monkeypatch):  # noqa: F811
    """Of a detector: reading, and drawing in colours, draw random numbers."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))
    options = SMALL_DETECTOR | {
        "SOLVER.MAX_ITER": 2, "TEST.EVAL_PERIOD": 1, "SEED": 5, "DATALOADER.NUM_WORKERS": 0,
        "MODEL.DEVICE": "cpu",
    }  # fmt: skip
    weights, figures = [], []
    for count in (0, 2):
        folder = tmp_path / str(count)
        overrides = as_yaml(options, output=folder, TEST__EVAL_PICTURES=count)
        figures.append(run(load_config(str(root / DETECTOR), overrides), arguments()))
        weights.append(read_weights(folder / "model_final.pth").state)
    assert shown(tmp_path / "0") == {}
    assert [*shown(tmp_path / "2").values()] == [[0, 2]] * 2
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    torch.testing.assert_close(*figures, rtol=0, atol=0, equal_nan=True)


def test_pictures_are_not_kept_where_nobody_writes_them(tmp_path):
    """As with ``build_writers`` of one's own, without a TensorboardXWriter."""
    with EventStorage() as storage:
        storage.put_image("val/a", np.zeros((3, 4, 5), np.uint8))
        spec = SimpleNamespace(output_dir=str(tmp_path), wandb=WandbOptions())
        for writer in with_own_writers(spec, []):
            writer.write()
    assert not storage._vis_data


def test_a_run_that_diverges_keeps_its_curves(tmp_path):
    cfg = yaml_config(tmp_path, rate=1e20, **WORDS[yaml_config])
    with pytest.raises(UsageError, match="training diverged"):
        run(cfg, arguments())
    (entry,) = json.loads((tmp_path / "run.json").read_text())
    assert not entry["finished"] and entry["reached_iteration"] < 20


@pytest.mark.parametrize("verbose", [False, True])
def test_the_console_is_short_unless_asked(tmp_path, capsys, verbose):
    set_up(yaml_config(tmp_path), arguments(verbose=verbose), output_dir=str(tmp_path))
    logging.getLogger("detectron2.data").warning("a broken picture")
    logging.getLogger("dnl_d2.engine").info("15 norms replaced")
    out, log = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert "a broken picture" in out and "15 norms replaced" in out
    assert (f"the full log is in {tmp_path}/log.txt" in out) != verbose
    for detail in ("Environment info", "Running with full config"):
        assert log.count(detail) == 1
        assert out.count(detail) == (1 if verbose else 0)


def test_overwriting_deletes_what_is_of_the_earlier_run(tmp_path):
    for name in ("curves.png", "run.json", "log.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "wandb").mkdir()
    clear(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["log.txt", "run.json"]
