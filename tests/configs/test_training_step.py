"""Every published recipe trains: one step of its own optimiser on a narrow copy of its network."""

import pathlib

import pytest
import torch
from detectron2.config import instantiate

from dnl_d2.engine import Trainer, load_config
from dnl_d2.engine.environment import fit_sync_batch_norm
from tests.engine.runs import as_yaml
from tests.meta import on_meta

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
FOLDERS = ("cityscapes", "ade20k", "voc12aug", "pascal-context")
LEAVES = [f for folder in FOLDERS for f in sorted((CONFIGS / folder).glob("*.yaml"))]
TWINS = [f for folder in FOLDERS for f in sorted((CONFIGS / folder).glob("*.py"))]
NARROW = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 16,
    "MODEL.SEM_SEG_HEAD.ASYMMETRIC.PROJECT_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": 8,
    "INPUT.CROP.SIZE": (33, 49),  # to which training pads
}


def batch(num_classes):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(num_classes, (2, 33, 49), generator=generator)
    label[:, :5] = 255
    images = torch.randint(256, (2, 3, 33, 49), generator=generator, dtype=torch.uint8)
    return [{"image": i, "sem_seg": s} for i, s in zip(images, label, strict=True)]


def step(model, optimizer, num_classes):
    """One training step; the names of the parameters it changed."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model(batch(num_classes))
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_auxiliary"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    # About ln K, since the classifiers start near zero.
    assert 0.3 < losses["loss_sem_seg"] / torch.log(torch.tensor(float(num_classes))) < 1.5
    sum(losses.values()).backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("file", LEAVES, ids=lambda f: f.stem)
def test_a_step_changes_every_part(file):
    torch.manual_seed(0)
    cfg = load_config(str(file), as_yaml(NARROW))
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert all(group["lr"] == cfg.SOLVER.BASE_LR for group in optimizer.param_groups)
    names = {id(p): name for name, p in model.named_parameters()}
    free = {
        names[id(p)] for g in optimizer.param_groups if not g["weight_decay"] for p in g["params"]
    }
    expected = [n for n in names.values() if any(part in n for part in cfg.SOLVER.NO_DECAY)]
    assert free == set(expected)
    changed = step(model, optimizer, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    for part in ("backbone.stem.conv1", "backbone.res5", "sem_seg_head.predictor"):
        assert any(name.startswith(part) for name in changed), part
    assert any(name.startswith("sem_seg_head.auxiliary.predictor") for name in changed)


@pytest.mark.parametrize("file", TWINS, ids=lambda f: f.stem)
def test_a_twin_builds_its_optimizer_with_the_same_groups(file):
    ours = load_config(str(file.with_suffix(".yaml")), ["MODEL.DEVICE", "meta"])
    twin = load_config(str(file))
    with on_meta():
        models = (
            Trainer.build_model(ours),
            fit_sync_batch_norm(instantiate(twin.model), "cpu"),
        )
    twin.optimizer.params.model = models[1]
    described = []
    for model, optimizer in zip(
        models, (Trainer.build_optimizer(ours, models[0]), instantiate(twin.optimizer)), strict=True
    ):
        rates = {
            id(p): (group["lr"], group["weight_decay"], group["momentum"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        described.append({name: rates[id(p)] for name, p in model.named_parameters()})
    assert described[0] == described[1]
