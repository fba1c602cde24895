"""``--eval-only`` and predictions in bfloat16."""

import numpy as np
import pytest
import torch

import dnl_d2
from dnl_d2.engine import load_config, run
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_model
from dnl_d2.errors import UsageError
from tests.engine.runs import (  # noqa: F401
    LAZY_OPTIONS,
    STEM,
    YAML_OPTIONS,
    arguments,
    as_lazy,
    as_yaml,
    environment,
)

pytestmark = pytest.mark.usefixtures("environment")
SYSTEMS = {
    ".yaml": (as_yaml, YAML_OPTIONS, "TEST.PRECISION"),
    ".py": (as_lazy, LAZY_OPTIONS, "train.eval_precision"),
}


@pytest.mark.parametrize("ending", SYSTEMS)
def test_figures_and_predictions_are_of_the_precision(ending, tmp_path, datasets):
    words, options, key = SYSTEMS[ending]
    options = options | {key: "bfloat16"}
    weights = str(tmp_path / "weights.pth")
    overrides = words(options, output=str(tmp_path), weights=weights)
    cfg = load_config(STEM + ending, overrides)
    torch.manual_seed(0)
    torch.save({"model": build_model(read_config(cfg, train=False)).state_dict()}, weights)
    figures = run(cfg, arguments(eval_only=True))["sem_seg"]
    plain = load_config(STEM + ending, words(options | {key: "float32"}, output=str(tmp_path),
                                             weights=weights))  # fmt: skip
    expected = run(plain, arguments(eval_only=True))["sem_seg"]
    assert figures != expected and figures["pACC"] == pytest.approx(expected["pACC"], abs=5)
    file = next(iter(sorted((datasets / "generated" / "val").iterdir())))
    labels = {}
    for precision in (None, "bfloat16", "float32"):
        predict = dnl_d2.Predictor(cfg, weights=weights, device="cpu", precision=precision)
        dtype = next(predict.model.backbone.parameters()).dtype
        assert dtype == getattr(torch, precision or "bfloat16")
        labels[precision] = np.asarray(predict(file))
    np.testing.assert_array_equal(labels[None], labels["bfloat16"])
    assert 0.8 < (labels["float32"] == labels[None]).mean() < 1


@pytest.mark.parametrize("ending", SYSTEMS)
def test_a_precision_that_is_none(ending):
    words, options, key = SYSTEMS[ending]
    cfg = load_config(STEM + ending, words(options | {key: "fp8"}))
    with pytest.raises(UsageError, match=f"{key} .*one of float32, bfloat16, float16"):
        read_config(cfg, train=False)
