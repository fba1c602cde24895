"""Parameters that get no gradient in one of several processes."""

import os
from pathlib import Path

import pytest

from dnl_d2.engine import load_config, run
from dnl_d2.engine.runner import read_config
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
from tests.processes import call_in_group

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTOR = CONFIGS / "generated/mask_rcnn_r18w32_fpn_300_generated-instances.yaml"


def train_a_detector(folder, datasets):
    """Of whose FPN only one level is looked at."""
    os.environ["DETECTRON2_DATASETS"] = str(datasets)

    def config(**more):
        options = {"output": folder / "run", "TEST__EVAL_PERIOD": 0, "period": 10, **more}
        return load_config(str(DETECTOR), as_yaml(SMALL_DETECTOR, **options))

    with pytest.raises(UsageError, match=r"set SOLVER.DDP.FIND_UNUSED_PARAMETERS to True, which"):
        run(config(SOLVER__DDP__FIND_UNUSED_PARAMETERS=False), arguments())
    run(config(), arguments(overwrite=True))


def test_a_detector_says_what_to_set(tmp_path, pictures):  # noqa: F811
    call_in_group(train_a_detector, 2, tmp_path, pictures)
    assert (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.usefixtures("environment")
def test_both_config_systems_have_the_options(tmp_path):
    yaml = yaml_config(tmp_path, SOLVER__DDP__FIND_UNUSED_PARAMETERS=True)
    lazy = lazy_config(tmp_path, train__ddp__find_unused_parameters="true")
    options = {"broadcast_buffers": False, "fp16_compression": False}
    for cfg in (yaml, lazy):
        assert read_config(cfg, train=True).ddp == options | {"find_unused_parameters": True}
    lazy.train.ddp.find_unused_parameters = "yes"
    with pytest.raises(UsageError, match=r"train.ddp.find_unused_parameters is 'yes': use true or"):
        read_config(lazy, train=True)
