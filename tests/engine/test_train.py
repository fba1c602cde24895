"""Training, evaluation and resuming, in both config systems, on a small generated dataset."""

import copy
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.engine import TrainerBase, launch
from detectron2.layers import get_norm
from detectron2.utils.events import EventStorage
from torch import nn

from dnl_d2.data import register_sem_seg_folder
from dnl_d2.engine import Trainer, run
from dnl_d2.engine.environment import fit_sync_batch_norm, usable_device
from dnl_d2.engine.precision import AutocastInTraining
from dnl_d2.engine.resume_hooks import ResumeNotes
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.validation.splits import check_datasets
from dnl_d2.validation.task import Task
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401
from tests.processes import leave

pytestmark = pytest.mark.usefixtures("environment")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_twenty_iterations_lower_the_loss(tmp_path):
    cfg = yaml_config(tmp_path, MODEL__DEVICE="cpu")
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates[0] == pytest.approx(cfg.SOLVER.BASE_LR)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_a_run_leaves_results_metrics_events_and_checkpoints(kind, tmp_path):
    results = run(kind(tmp_path), arguments())
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    assert "IoU-paired" in results["sem_seg"]
    files = {p.name for p in tmp_path.iterdir()}
    assert {"metrics.json", "config.yaml", "model_final.pth", "model_best.pth"} <= files
    assert any("tfevents" in name for name in files)
    last = metrics(tmp_path)[-1]
    assert last["sem_seg/mIoU"] == pytest.approx(results["sem_seg"]["mIoU"])
    best = torch.load(tmp_path / "model_best.pth", weights_only=False)
    final = torch.load(tmp_path / "model_final.pth", weights_only=False)
    for key, value in final["model"].items():
        assert torch.equal(best["model"][key], value)


def test_eval_only_reproduces_the_figures_of_training(tmp_path):
    trained = run(yaml_config(tmp_path), arguments())
    again = run(
        yaml_config(tmp_path / "eval", MODEL__WEIGHTS=str(tmp_path / "model_final.pth")),
        arguments(eval_only=True),
    )
    assert again["sem_seg"] == pytest.approx(trained["sem_seg"], nan_ok=True)
    # The twin reads the same file.
    lazy = lazy_config(tmp_path / "lazy", train__init_checkpoint=str(tmp_path / "model_final.pth"))
    assert run(lazy, arguments(eval_only=True))["sem_seg"] == pytest.approx(
        trained["sem_seg"], nan_ok=True
    )


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_resume_goes_on_where_it_stopped_and_keeps_the_best(kind, tmp_path, monkeypatch):
    starts, train = [], TrainerBase.train

    def spy(self, start, end):
        starts.append((start, end))
        return train(self, start, end)

    monkeypatch.setattr(TrainerBase, "train", spy)
    run(kind(tmp_path, length=4, period=2, eval_period=2), arguments())
    first = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert first["iteration"] == 3
    best = torch.load(tmp_path / "model_best.pth", weights_only=False)
    assert (best["metric"], best["figure"]) == max(
        ("sem_seg/mIoU", line["sem_seg/mIoU"])
        for line in metrics(tmp_path)
        if "sem_seg/mIoU" in line
    )
    log = tmp_path / "log.txt"
    assert "base learning rate" not in log.read_text()
    run(kind(tmp_path, length=6, period=2, eval_period=2, rate=0.05), arguments(resume=True))
    assert "its own base learning rate 0.02, not the config's 0.05" in log.read_text()
    assert torch.load(tmp_path / "model_final.pth", weights_only=False)["iteration"] == 5
    assert starts == [(0, 4), (4, 6)]


def test_resume_says_where_nothing_is_left_to_train(caplog):
    hook = ResumeNotes(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
    for start, end in ((0, 0), (2, 3)):
        hook.trainer = SimpleNamespace(start_iter=start, max_iter=end)
        hook.before_train()
    assert not caplog.records
    hook.trainer = SimpleNamespace(start_iter=3, max_iter=3)
    hook.before_train()
    assert "nothing is left to train: the checkpoint is of iteration 3" in caplog.text


@pytest.mark.parametrize(("limit", "moves"), [(0, True), (1e-6, False)])
def test_lazy_gradients_are_clipped(tmp_path, limit, moves):
    options = {"optimizer__weight_decay": 0, "train__clip_norm": limit}
    run(lazy_config(tmp_path, length=2, period=1, **options), arguments())
    first, last = (
        torch.load(tmp_path / f"model_{name}.pth")["model"]["sem_seg_head.predictor.weight"]
        for name in ("0000000", "final")
    )
    assert ((first - last).abs().max() > 1e-4) == moves


def test_cpu_mixed_precision_trains_in_bfloat16_and_evaluates_in_fp32(tmp_path):
    trainer = Trainer(yaml_config(tmp_path, MODEL__DEVICE="cpu", SOLVER__AMP__ENABLED=True))
    seen = []
    model = trainer._trainer.model.model
    model.sem_seg_head.convs[0].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    trainer._trainer.iter = 0
    with EventStorage():
        trainer._trainer.run_step()
    model.eval()
    with torch.no_grad():
        result = model([{"image": torch.zeros(3, 64, 64)}])
    assert seen == [torch.bfloat16, torch.float32]
    assert result[0]["sem_seg"].dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_mixed_precision_leaves_the_model_as_it_is():
    model = nn.Sequential(nn.Linear(2, 2))
    wrapped = AutocastInTraining(model)
    copied = copy.deepcopy(wrapped)
    nn.init.zeros_(copied.model[0].weight)
    nn.init.zeros_(copied.model[0].bias)
    assert torch.equal(copied.train()(torch.ones(1, 2)).float(), torch.zeros(1, 2))
    assert wrapped.train()(torch.ones(1, 2)).dtype == torch.bfloat16
    assert wrapped.eval()(torch.ones(1, 2)).dtype == torch.float32
    assert model(torch.ones(1, 2)).dtype == torch.float32


def test_sync_bn_falls_back_and_says_so(caplog):
    model = nn.Sequential(get_norm("SyncBN", 4), nn.Sequential(nn.SyncBatchNorm(3, affine=False)))
    model[0].running_mean.fill_(3.0)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="dnl_d2"):
        plain = fit_sync_batch_norm(model, "cuda")
    assert "2 SyncBN layers run as BN" in caplog.text
    assert [type(m) for m in plain.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] == [
        nn.BatchNorm2d
    ] * 2
    for key, value in plain.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_cuda_falls_back_to_the_cpu_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="dnl_d2"):
        assert usable_device("cuda") == "cpu"
    assert "no CUDA device" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "names no dataset"),
        (["camvid"], r"'camvid' is not registered.*camvid_sem_seg_train"),
    ],
)
def test_datasets_have_to_be_registered(names, message):
    with pytest.raises(UsageError, match=message):
        check_datasets(names, task=Task(num_classes=8), max_files=10, what="DATASETS.TRAIN")


def test_missing_folder_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UsageError, match="generated") as error:
        run(yaml_config(tmp_path / "out"), arguments())
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_label_out_of_range_is_found_before_training(tmp_path, save):
    save("images/a.png", np.zeros((8, 8, 3), np.uint8))
    save("labels/a.png", np.full((8, 8), 9, np.uint8))
    folders = str(tmp_path / "images"), str(tmp_path / "labels")
    register_sem_seg_folder("bad_labels_sem_seg", *folders, classes=list("abcdefgh"))
    with pytest.raises(UsageError, match=r"a\.png.*9"):
        run(yaml_config(tmp_path / "out", DATASETS__TRAIN="('bad_labels_sem_seg',)"), arguments())


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_no_figure_without_weights(kind, tmp_path):
    (tmp_path / "garbage.pth").write_bytes(b"<html>not found</html>")
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    for value, message in [
        ("", "needs trained weights"),
        (tmp_path / "gone.pth", "no weights file"),
        (tmp_path / "garbage.pth", r"garbage\.pth: .*HTML"),
        (tmp_path / "other.pth", r"other\.pth: not a model this library knows"),
    ]:
        cfg = kind(tmp_path / "out", weights=value or ("''" if kind is lazy_config else ""))
        with pytest.raises(UsageError, match=message) as error:
            run(cfg, arguments(eval_only=True))
        assert "\n" not in str(error.value)
    run(kind(tmp_path / "run"), arguments())
    cfg = kind(tmp_path / "out", weights=tmp_path / "run" / "model_final.pth", width=16)
    with pytest.raises(UsageError, match="another shape"):
        run(cfg, arguments(eval_only=True))


def test_lazy_ignore_label_must_be_the_datasets(tmp_path):
    cfg = lazy_config(tmp_path, dataloader__train__mapper__dataset_ignore_label=3)
    with pytest.raises(UsageError, match=r"dataset_ignore_label=3.*ignores 255"):
        run(cfg, arguments())


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_batches_in_parts_with_a_scaled_schedule_and_resuming(kind, tmp_path):
    # The schedule is for batches of 8: its iterations become twice as many.
    sizes, options = [], {"batch": 4, "parts": 2, "reference": 8, "rate": 0.02}
    record = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: (
            sizes.append(len(inputs[0]))
            if isinstance(module, ContextSegmentor) and module.training
            else None
        )
    )
    try:
        run(kind(tmp_path, length=2, **options), arguments())
        assert "scaled from batches of 8" in (tmp_path / "log.txt").read_text()
        assert sizes == [2] * 8
        assert torch.load(tmp_path / "model_final.pth", weights_only=False)["iteration"] == 3
        run(kind(tmp_path, length=3, **options), arguments(resume=True))
    finally:
        record.remove()
    assert sizes == [2] * 12
    final = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert final["iteration"] == 5
    trainer = final["trainer"]
    groups = trainer.get("_trainer", trainer)["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.01}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (yaml_config, {"MODEL__SEM_SEG_HEAD__NAME": "NoHead"}, "while building.*NoHead"),
        (yaml_config, {"MODEL__SEM_SEG_HEAD__NORM": "QN"}, "SEM_SEG_HEAD.NORM is .QN.: use a norm"),
        (yaml_config, {"SOLVER__LR_SCHEDULER_NAME": "Nope"}, "while building.*Nope"),
        (yaml_config, {"INPUT__CROP__TYPE": "relative"}, "INPUT.CROP.TYPE"),
        (yaml_config, {"MODEL__SEM_SEG_HEAD__CONTEXT__NAME": ""}, "no NAME"),
        (yaml_config, {"output": "/dev/null/x"}, "output folder"),
        (yaml_config, {"output": "~/out"}, "OUTPUT_DIR is '~/out': use a folder, written out"),
        (yaml_config, {"DATASETS__TRAIN": "('cityscapes_sem_seg_train',)"}, "DETECTRON2_DATASETS"),
        (yaml_config, {"SOLVER__ACCUMULATE": 3}, "SOLVER.ACCUMULATE=3: a batch of 4 images"),
        (lazy_config, {"train__accumulate": 3}, "train.accumulate=3: a batch of 4 images"),
        (yaml_config, {"SOLVER__AMP__DTYPE": "half"}, "SOLVER.AMP.DTYPE='half': use one of"),
        (lazy_config, {"train__amp__dtype": "half"}, "train.amp.dtype='half': use one of"),
        (yaml_config, {"SOLVER__NO_DECAY": "['theta']"}, "SOLVER.NO_DECAY: 'theta' is in the name"),
        (lazy_config, {"optimizer__params__no_decay": "[theta]"}, "no_decay: 'theta' is in the"),
        (
            yaml_config,
            {"MODEL__SEM_SEG_HEAD__LOSS_CLASS_WEIGHTS": "[1.0, 2.0]"},
            "2 class weights .*LOSS_CLASS_WEIGHTS.*8 classes",
        ),
    ],
)
def test_wrong_values_are_one_line(kind, options, message, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        run(kind(tmp_path / "out", **options), arguments())
    assert "\n" not in str(error.value)


def train_in_a_process(folder):
    for kind in (yaml_config, lazy_config):
        run(kind(folder / kind.__name__, length=2), arguments())
    leave()


@pytest.mark.slow
def test_two_processes_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # two processes want two GPUs where there is one
    launch(train_in_a_process, 2, dist_url="auto", args=(tmp_path,))
    for kind in (yaml_config, lazy_config):
        folder = tmp_path / kind.__name__
        final = torch.load(folder / "model_final.pth", weights_only=False)
        assert final["iteration"] == 1
        assert not any(key.startswith("module.") for key in final["model"])
        assert 0 <= metrics(folder)[-1]["sem_seg/mIoU"] <= 100
