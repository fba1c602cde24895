"""The small detectors on generated instances: each trains and evaluates as shipped, for 2 steps."""

import math
import pathlib

import pytest

from dnl_d2.engine import load_config, run
from tests.engine.runs import SMALL_DETECTOR, arguments, as_yaml, pictures  # noqa: F401

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
METHODS = {"": "", "gc_r4_c3-c5_": "gc", "nl_c4_": "nl", "dnl_c4_": "dnl"}
NAME = "mask_rcnn_r18w32_fpn_{}300_generated-instances"


def leaf(method: str) -> str:
    return str(CONFIGS / "generated" / f"{NAME.format(method)}.yaml")


def test_these_are_all():
    found = {path.stem for path in (CONFIGS / "generated").glob("*.yaml")}
    assert found == {NAME.format(method) for method in METHODS}


@pytest.mark.parametrize(("method", "block"), METHODS.items())
def test_leaves_differ_in_the_block_alone(method, block):
    """Same budget, same everything."""
    cfg, baseline = load_config(leaf(method), []), load_config(leaf(""), [])
    assert block == cfg.MODEL.RESNETS.CONTEXT.NAME
    output = f"output/generated/{NAME.format(method)}"
    assert output == cfg.OUTPUT_DIR
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH) == (300, 8)
    cfg.OUTPUT_DIR = baseline.OUTPUT_DIR
    for key in ("CONTEXT", "CONTEXT_STAGES", "CONTEXT_POSITION"):
        cfg.MODEL.RESNETS[key] = baseline.MODEL.RESNETS[key]
    assert cfg == baseline


@pytest.mark.parametrize("method", METHODS)
def test_trains_and_evaluates(method, pictures, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))
    options = as_yaml(SMALL_DETECTOR, output=tmp_path, MODEL__DEVICE="cpu")
    results = run(load_config(leaf(method), options), arguments())
    for task in ("bbox", "segm"):
        assert 0 <= results[task]["AP"] <= 100
        assert {f"AP-{name}" for name in ("paired", "texture_a", "beacon_b")} <= set(results[task])
    assert math.isfinite(results["segm"]["AP50"])
    assert (tmp_path / "model_final.pth").is_file()
