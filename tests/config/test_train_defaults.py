"""LazyConfigs that were not written for this library."""

from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from dnl_d2.config.loading import load_config_file, zoo_folder
from dnl_d2.config.train_defaults import TRAIN, fill_train
from dnl_d2.engine import read_config
from dnl_d2.errors import UsageError

ZOO = Path(zoo_folder(), "configs")
# The recipes of the zoo; common/ is what they share.
FILES = [str(p.relative_to(ZOO)) for p in sorted(ZOO.glob("*/*.py")) if p.parent.name != "common"]


@pytest.mark.parametrize("path", FILES)
def test_every_recipe_of_detectron2_is_a_run(path):
    theirs = LazyConfig.load(str(ZOO / path))
    cfg = load_config_file(str(ZOO / path), ["train.seed=3", "train.device=cpu"])
    if "imagenet" in path:  # its loaders are of a task of its own
        with pytest.raises(UsageError, match=r"dataloader\.train\.total_batch_size is missing"):
            read_config(cfg, train=True)
        return
    spec = read_config(cfg, train=True)
    assert (spec.max_iter, spec.eval_period) == (theirs.train.max_iter, theirs.train.eval_period)
    assert spec.checkpoints == dict(theirs.train.checkpointer)
    assert spec.weights == (theirs.train.init_checkpoint or "")
    assert (spec.accumulate, spec.amp_dtype, spec.scaled) == (1, "float16", False)
    assert spec.config.train.seed == 3
    assert read_config(theirs, train=True).config.train.seed == -1  # as loaded by Detectron2
    assert "seed" not in theirs.train


def test_only_what_is_lacking_is_filled():
    cfg = OmegaConf.create({"train": {"max_iter": 5, "seed": None, "amp": {"enabled": True}}})
    fill_train(cfg)
    assert cfg.train == TRAIN | {"max_iter": 5, "amp": {"enabled": True, "dtype": "float16"}}
    for untouched in ({"model": {}}, {"train": "x"}):
        cfg = OmegaConf.create(untouched)
        fill_train(cfg)
        assert cfg == untouched
