"""Trainer as other people's train_net.py use it, and what both config systems can do alike."""

import json
import logging

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultTrainer, SimpleTrainer, hooks
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import build_model as build_detectron2_model
from omegaconf import OmegaConf
from torch import nn
from torchvision.models import resnet18

from dnl_d2.checkpoint import convert_back, get_source
from dnl_d2.data.datasets import folder
from dnl_d2.engine import Trainer, read_config, run
from dnl_d2.engine.training import build_model
from dnl_d2.errors import UsageError
from dnl_d2.evaluation import build_evaluator
from dnl_d2.modeling import ContextSegmentor
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401

pytestmark = pytest.mark.usefixtures("environment")


def idiom(trainer, *, resume=False):
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def test_a_model_for_a_gpu_that_is_not_there(tmp_path, monkeypatch, caplog):
    """Trainer builds it for the CPU and says so; Detectron2's own function is told what to set."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = yaml_config(tmp_path / "out", MODEL__DEVICE="cuda")
    assert Trainer.build_model(cfg).device.type == "cpu" and "running on cpu" in caplog.text
    with pytest.raises(UsageError, match=r"MODEL\.DEVICE is cuda, .*: set MODEL\.DEVICE to cpu"):
        build_detectron2_model(cfg)
    assert cfg.MODEL.DEVICE == "cuda"


def test_the_usual_idiom_starts_from_a_torchvision_file(tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    published = torch.load(path)
    cfg = yaml_config(
        tmp_path / "out",
        MODEL__WEIGHTS=str(path),
        MODEL__RESNETS__STEM_TYPE="basic",
        MODEL__RESNETS__STEM_OUT_CHANNELS=64,
        MODEL__RESNETS__RES2_OUT_CHANNELS=64,
        SOLVER__MAX_ITER=1,
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    for ours, theirs in (("stem.conv1", "conv1"), ("res5.1.conv2", "layer4.1.conv2")):
        loaded = trainer.model.backbone.get_submodule(ours).weight
        assert torch.equal(loaded.cpu(), published[f"{theirs}.weight"])
    trainer.train()
    assert (tmp_path / "out/model_final.pth").is_file()


def test_the_usual_idiom_starts_from_an_mmsegmentation_file(tmp_path, caplog):
    """And the log says which key filled which parameter."""
    path, cfg = tmp_path / "mmseg.pth", yaml_config(tmp_path / "out")
    model = build_model(read_config(cfg, train=True))
    state = convert_back(model.state_dict(), get_source("mmseg")).state
    torch.save({"state_dict": {k: v + 1 for k, v in state.items()}}, path)
    trainer = Trainer(yaml_config(tmp_path / "out", MODEL__WEIGHTS=str(path)))
    with caplog.at_level(logging.DEBUG, logger="dnl_d2"):
        trainer.resume_or_load(resume=False)
    assert trainer.checkpointer.unfilled == ()
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key] + 1)
    lines = caplog.text.splitlines()
    assert "sem_seg_head.predictor.weight <- decode_head.conv_seg.weight" in lines
    assert "backbone.res2.0.conv1.weight <- backbone.layer1.0.conv1.weight" in lines
    assert sum(" <- " in line for line in lines) == len(model.state_dict())


def test_a_wrong_file_is_named_by_the_usual_idiom(tmp_path):
    trainer = Trainer(yaml_config(tmp_path, MODEL__WEIGHTS="nowhere.pth"))
    with pytest.raises(UsageError, match="there is no weights file 'nowhere"):
        trainer.resume_or_load(resume=False)


def test_a_subclass_counts_in_training_and_in_evaluation(tmp_path):
    built = []

    class Mine(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            built.append(dataset_name)
            return DatasetEvaluators([build_evaluator(dataset_name, str(tmp_path / "mine"))])

        @classmethod
        def build_optimizer(cls, cfg, model):
            return torch.optim.Adam(model.parameters(), lr=1e-4)

        def build_hooks(self):
            return [*super().build_hooks()[:-1], None]  # without writers

    trainer = Mine(yaml_config(tmp_path, SOLVER__MAX_ITER=1))
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    idiom(trainer)
    assert built == ["generated_sem_seg_val"]
    assert (tmp_path / "mine/generated_sem_seg_val").is_dir()
    assert not any(isinstance(hook, hooks.PeriodicWriter) for hook in trainer._hooks)
    results = Mine.test(trainer.cfg, trainer.model)
    assert "mIoU" in results["sem_seg"]


def train_by(kind, folder, iterations, *, resume):
    if kind == "trainer":
        idiom(Trainer(yaml_config(folder, length=iterations)), resume=resume)
    else:
        config = yaml_config if kind == "yaml" else lazy_config
        run(config(folder, length=iterations), arguments(resume=resume))


@pytest.mark.parametrize(
    ("first", "second"),
    [("trainer", "yaml"), ("yaml", "trainer"), ("yaml", "lazy"), ("lazy", "yaml")],
)
def test_a_run_goes_on_however_it_is_started(first, second, tmp_path):
    train_by(first, tmp_path, 2, resume=False)
    before = torch.load(tmp_path / "model_final.pth", weights_only=False)
    train_by(second, tmp_path, 3, resume=True)
    after = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert (before["iteration"], after["iteration"]) == (1, 2)
    momenta = [
        content["trainer"].get("_trainer", content["trainer"])["optimizer"]["state"]
        for content in (before, after)
    ]
    assert len(momenta[0]) == len(momenta[1]) > 20


def test_adamw_by_yaml_is_that_of_lazyconfig(root, tmp_path):
    options = {"SOLVER__WEIGHT_DECAY": 1e-3, "SOLVER__WEIGHT_DECAY_NORM": 0.0}
    cfg = yaml_config(tmp_path, rate=3e-3, SOLVER__OPTIMIZER="AdamW", **options)
    model = build_model(read_config(cfg, train=True))
    twin = LazyConfig.load(str(root / "configs/common/optim.py")).adamw
    twin.params.model = model
    optimizers = Trainer.build_optimizer(cfg, model), instantiate(twin)
    found = [
        {p: (g["lr"], g["weight_decay"], g["betas"]) for g in o.param_groups for p in g["params"]}
        for o in optimizers
    ]
    assert type(optimizers[0]) is type(optimizers[1]) is torch.optim.AdamW
    assert found[0] == found[1] and len(found[0]) == len(list(model.parameters()))
    adam = Trainer.build_optimizer(yaml_config(tmp_path, SOLVER__OPTIMIZER="ADAM"), model)
    assert type(adam) is torch.optim.Adam
    with pytest.raises(UsageError, match="OPTIMIZER is 'Lion': use SGD, Adam or AdamW"):
        read_config(yaml_config(tmp_path, SOLVER__OPTIMIZER="Lion"), train=True)


def test_a_lazy_model_of_another_kind_trains_on_its_own_loader(tmp_path):
    """Nothing is known of what it reads, so nothing is checked."""
    cfg = lazy_config(tmp_path, train__max_iter=3, train__device="cpu")
    cfg.model = L(Other)()
    cfg.dataloader = OmegaConf.create()
    cfg.dataloader.train = L(batches)(total_batch_size=2)
    assert run(cfg, arguments()) == {}
    assert (tmp_path / "model_final.pth").is_file()


class Other(nn.Module):
    """Neither segments nor detects."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs):
        return {"loss": self.layer(inputs).square().mean()}


def pictures():
    """A list of records that no catalog knows."""
    return DatasetCatalog.get("generated_sem_seg_val")


def test_a_test_set_without_a_name_is_evaluated_also_by_a_list_of_evaluators(tmp_path):
    cfg = lazy_config(tmp_path, train__max_iter=1)
    cfg.dataloader.test.dataset = L(pictures)()
    evaluator = L(build_evaluator)(dataset_name="generated_sem_seg_val", output_dir=str(tmp_path))
    cfg.dataloader.evaluator = [evaluator, L(DatasetEvaluators)(evaluators=[])]
    assert "mIoU" in run(cfg, arguments())["sem_seg"]


def test_evaluation_needs_no_loader_of_training(tmp_path):
    cfg = lazy_config(tmp_path, train__max_iter=1)
    run(cfg, arguments())
    cfg.train.init_checkpoint = str(tmp_path / "model_final.pth")
    OmegaConf.resolve(cfg)
    del cfg.dataloader["train"]
    assert "mIoU" in run(cfg, arguments(eval_only=True))["sem_seg"]
    with pytest.raises(UsageError, match=r"dataloader.train.total_batch_size is missing"):
        run(cfg, arguments())


def factory(**options):
    return ContextSegmentor(**options)


def test_a_model_from_a_function_averages_over_scales(tmp_path):
    cfg = lazy_config(tmp_path, train__max_iter=1)
    run(cfg, arguments())
    cfg.train.init_checkpoint = str(tmp_path / "model_final.pth")
    cfg.model._target_ = factory
    cfg.dataloader.test.mapper.multi_scale_flip.enabled = True
    assert "mIoU" in run(cfg, arguments(eval_only=True))["sem_seg"]


def test_models_for_evaluation_are_checked_and_fitted_too(tmp_path):
    """As in ``Trainer.test(cfg, Trainer.build_model(cfg))``."""
    other = {"MODEL__META_ARCHITECTURE": "SemanticSegmentor", "MODEL__DEVICE": "cpu"}
    cfg = yaml_config(tmp_path, **other, TEST__SLIDE__WINDOW="(64,64)")
    with pytest.raises(UsageError, match=r"TEST.SLIDE.WINDOW: SemanticSegmentor does not slide"):
        Trainer.build_model(cfg)
    cfg = yaml_config(tmp_path, **other, TEST__AUG__ENABLED=True)
    with pytest.raises(UsageError, match="SemanticSegmentor does not average over scales"):
        Trainer.build_model(cfg)
    model = Trainer.build_model(yaml_config(tmp_path, MODEL__DEVICE="cpu"))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    with pytest.raises(UsageError, match=r"call dnl_d2.add_dnl_config\(cfg\) first"):
        Trainer(get_cfg())


def test_detectron2s_own_loops_go_on_from_checkpoints(tmp_path):
    run(yaml_config(tmp_path, SOLVER__MAX_ITER=1), arguments())
    state = torch.load(tmp_path / "model_final.pth", weights_only=False)["trainer"]
    model = build_model(read_config(yaml_config(tmp_path), train=True))
    optimizer = Trainer.build_optimizer(yaml_config(tmp_path), model)
    SimpleTrainer(model, [], optimizer).load_state_dict(state)
    trainer = Trainer(yaml_config(tmp_path))
    DefaultTrainer.load_state_dict(trainer, state)
    assert trainer.iter == 0 and len(trainer.optimizer.state) == len(optimizer.state) > 20


def test_a_test_method_may_take_two_arguments(tmp_path):
    class Mine(Trainer):
        @classmethod
        def test(cls, cfg, model):
            return {"mine": {"figure": 1.0}}

    trainer = Mine(yaml_config(tmp_path, SOLVER__MAX_ITER=1))
    idiom(trainer)
    assert trainer._last_eval_results == {"mine": {"figure": 1.0}}


def test_a_schedule_for_other_processes_is_told(tmp_path):
    run(yaml_config(tmp_path, SOLVER__REFERENCE_WORLD_SIZE=2, SOLVER__MAX_ITER=1), arguments())
    log = (tmp_path / "log.txt").read_text()
    assert "scaled from SOLVER.REFERENCE_WORLD_SIZE 2 to 1: SOLVER.IMS_PER_BATCH 4 -> 2" in log


def test_all_checkpoints_stay_where_none_is_to_go(tmp_path):
    options = {"length": 3, "period": 1, "train__checkpointer__max_to_keep": 0}
    run(lazy_config(tmp_path, **options), arguments())
    assert len(list(tmp_path.glob("model_0*.pth"))) == 3


def batches(total_batch_size):
    while True:
        yield torch.ones(total_batch_size, 1)


@pytest.mark.parametrize("kind", [yaml_config, lazy_config])
def test_a_run_lists_each_dataset_once(kind, tmp_path, monkeypatch):
    listed, load = [], folder.load_sem_seg_folder

    def spy(image_root, *more):
        listed.append(image_root.rpartition("/")[2])
        return load(image_root, *more)

    monkeypatch.setattr(folder, "load_sem_seg_folder", spy)
    run(kind(tmp_path, length=1), arguments())
    assert sorted(listed) == ["train", "val"]


def test_yaml_keeps_the_last_checkpoints_and_logs_as_often_as_asked(tmp_path):
    options = {"SOLVER__CHECKPOINTS_TO_KEEP": 2, "SOLVER__LOG_PERIOD": 1}
    run(yaml_config(tmp_path, length=4, period=1, **options), arguments())
    kept = sorted(path.name for path in tmp_path.glob("model_0*.pth"))
    assert kept == ["model_0000002.pth", "model_0000003.pth"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3, 4]  # the last is the evaluation
