"""The COCO recipes in LazyConfig are those in YAML."""

import sys

import numpy as np
import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from detectron2.data.transforms import AugInput
from torch import nn

from dnl_d2.config.rules import check_lazy, check_yaml
from dnl_d2.engine import Trainer, load_config
from tests.configs.coco import CONFIGS, LEAVES, meta_model, yaml_config
from tests.configs.twins import check_same_network, check_twins, described
from tests.meta import on_meta


def lazy_config(name):
    return load_config(str(CONFIGS / f"{name}.py"))


def test_every_leaf_has_a_twin():
    assert {f"coco/{file.stem}" for file in (CONFIGS / "coco").glob("*.py")} == set(LEAVES)


def test_twins_need_no_pkg_resources(monkeypatch):
    """Which newer versions of setuptools lack, and detectron2.model_zoo may import."""
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    for name in [n for n in sys.modules if n.startswith("detectron2.model_zoo")]:
        monkeypatch.delitem(sys.modules, name)
    assert lazy_config(LEAVES[0]).model.roi_heads.num_classes == 80


@pytest.mark.parametrize("name", LEAVES)
def test_a_twin_is_the_same_network(name):
    ours = meta_model(name)
    with on_meta():
        twin = instantiate(lazy_config(name).model)
    check_same_network(ours, twin)


@pytest.mark.parametrize("name", LEAVES)
def test_a_twin_trains_alike(name):
    ours, twin = yaml_config(name), lazy_config(name)
    check_yaml(ours)
    check_lazy(twin)
    solver = ours.SOLVER
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "norm": nn.BatchNorm2d(1)})
    optimizer = check_twins(ours, twin, model)
    multiplier = Trainer.build_lr_scheduler(ours, optimizer)._multiplier
    multipliers = multiplier, instantiate(twin.lr_multiplier)
    for iteration in (0, 1, 250, 499, 500, *solver.STEPS, solver.MAX_ITER - 1):
        for near in (iteration - 1, iteration, iteration + 1):
            where = max(near, 0) / solver.MAX_ITER
            assert multipliers[0](where) == pytest.approx(multipliers[1](where), rel=1e-9)
    clip, loaders = solver.CLIP_GRADIENTS, twin.dataloader
    assert twin.train.clip_norm == clip.CLIP_VALUE and clip.ENABLED
    assert loaders.test.num_workers == ours.DATALOADER.NUM_WORKERS
    empty = loaders.train.dataset.get("filter_empty", True)
    assert empty == ours.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert loaders.evaluator.dataset_name == loaders.test.dataset.names
    assert described(DatasetMapper(ours, True)) == described(instantiate(loaders.train.mapper))
    tests = DatasetMapper(ours, False), instantiate(loaders.test.mapper)
    assert {mapper.image_format for mapper in tests} == {"RGB"}
    assert not any(mapper.is_train for mapper in tests)
    for size in ((480, 640), (300, 1000)):
        resized = [mapper.augmentations(AugInput(np.zeros((*size, 3)))) for mapper in tests]
        mine, other = ([described(t) for t in found.transforms] for found in resized)
        assert mine == other and len(mine) == 1
