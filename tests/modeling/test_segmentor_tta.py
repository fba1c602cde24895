"""Multi-scale and flip against a loop over the versions of a picture, and in both engines."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from detectron2.modeling import SemanticSegmentor
from PIL import Image

from dnl_d2 import optimize_for_inference
from dnl_d2.data import MultiScaleFlip, SemSegMapper
from dnl_d2.engine import run
from dnl_d2.errors import UsageError
from dnl_d2.modeling import ContextSegmentor
from dnl_d2.modeling.inference import average_probabilities
from tests.engine.runs import arguments, environment, lazy_config, yaml_config  # noqa: F401
from tests.modeling.segmentors import image, parts

SLIDE = {"slide_window": (24, 32), "slide_stride": (16, 20)}


def test_average_by_hand():
    """Of what is predicted for the picture and, turned back, for its mirror image."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 4, size, generator=generator) for size in (5, 8)]
    calls = []

    def predict(x):
        calls.append(x)
        position = torch.arange(6.0) / 6
        return F.interpolate(x[None], (4, 6), mode="bilinear")[0] * (1 + position)

    def probabilities(x):
        return predict(x).exp() / predict(x).exp().sum(0)

    for flip in (False, True):
        expected = [probabilities(x) for x in images]
        if flip:
            expected += [probabilities(x.flip(-1)).flip(-1) for x in images]
        calls.clear()
        got = average_probabilities(iter(images), predict, flip=flip)
        torch.testing.assert_close(got, torch.stack(expected).mean(0))
        torch.testing.assert_close(got.sum(0), torch.ones(4, 6))
        assert len(calls) == len(expected)


def test_half_precision_is_averaged_in_fp32():
    logits = torch.randn(3, 4, 4).bfloat16()
    got = average_probabilities([logits] * 3, lambda x: x, flip=False)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, logits.float().softmax(0))


@pytest.mark.parametrize("options", [{}, SLIDE], ids=["whole", "slide"])
@pytest.mark.parametrize("flip", [False, True])
def test_versions_of_a_picture(options, flip):
    model = ContextSegmentor(**parts(), **options).eval()
    versions = [image(20, 33), image(40, 65, seed=1), image(50, 82, seed=2)]
    with torch.no_grad():
        record = {"images": versions, "flip": flip, "height": 41, "width": 66}
        (got,) = model([record])
        expected = []
        for x in versions:
            single = {"image": x, "height": 41, "width": 66}
            expected.append(model([single])[0]["sem_seg"].softmax(0))
            if flip:
                single["image"] = x.flip(-1)
                expected.append(model([single])[0]["sem_seg"].softmax(0).flip(-1))
    assert got["sem_seg"].shape == (5, 41, 66)
    torch.testing.assert_close(got["sem_seg"], torch.stack(expected).mean(0))


def test_batches_may_mix_everything():
    model = ContextSegmentor(**parts()).eval()
    batch = [
        {"images": [image(24, 32), image(30, 40)], "flip": True, "height": 24, "width": 32},
        {"image": image(40, 65)},
        {"images": [image(40, 20)], "flip": False, "height": 80, "width": 40},
    ]
    with torch.no_grad():
        together = [r["sem_seg"] for r in model(batch)]
        alone = [model([x])[0]["sem_seg"] for x in batch]
    assert [tuple(r.shape) for r in together] == [(5, 24, 32), (5, 40, 65), (5, 80, 40)]
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1), (2, 3)])
def test_tiny_pictures(size, tmp_path):
    """The reference fails on sizes that a scale rounds to nothing; here a pixel remains."""
    path = str(tmp_path / "tiny.png")
    Image.fromarray(np.full((*size, 3), 77, np.uint8)).save(path)
    mapper = SemSegMapper(
        False, augmentations=[], multi_scale_flip=MultiScaleFlip(scales=(0.25, 1.0)), num_classes=5
    )
    record = mapper({"file_name": path})
    assert min(min(x.shape) for x in record["images"]) == 1
    for options in ({}, SLIDE):
        with torch.no_grad():
            (result,) = ContextSegmentor(**parts(), **options).eval()([record])
        assert result["sem_seg"].shape == (5, *size) and result["sem_seg"].isfinite().all()


def test_optimised_models_average_too():
    model = ContextSegmentor(**parts()).eval()
    record = {"images": [image(24, 32), image(36, 48)], "flip": True, "height": 30, "width": 40}
    with torch.no_grad():
        expected = model([record])[0]["sem_seg"]
        got = optimize_for_inference(model)([record])[0]["sem_seg"]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


# ---- with both kinds of config


@pytest.fixture
def configs(environment, tmp_path):  # noqa: F811
    """``(kind, {setting: value}) -> config`` of a small model on the generated dataset."""
    numbers = itertools.count()

    def make(kind, **options):
        config = {"yaml": yaml_config, "py": lazy_config}[kind]
        return config(tmp_path / str(next(numbers)), **SMALL[kind] | options)

    return make


# With the config's warm-up: three steps at the full rate make a model whose views all agree.
SMALL = {
    "yaml": {"SOLVER.WARMUP_ITERS": 100, "SOLVER.MAX_ITER": 3, "TEST.EVAL_PERIOD": 2},
    "py": {"train.max_iter": 3, "train.eval_period": 2},
}
ON = {
    "yaml": {"TEST.AUG.ENABLED": "True", "TEST.AUG.SCALES": "(0.5, 1.0)"},
    "py": {
        "dataloader.test.mapper.multi_scale_flip.enabled": "true",
        "dataloader.test.mapper.multi_scale_flip.scales": "[0.5,1.0]",
    },
}
WEIGHTS = {"yaml": "MODEL.WEIGHTS", "py": "train.init_checkpoint"}


def test_training_is_single_scale_and_eval_only_is_not(configs, monkeypatch, caplog, tmp_path):
    """Alike in both engines, to the last digit of the figures."""
    seen, predict = [], ContextSegmentor._predict_alone

    def spy(self, inputs):
        seen.append(len(inputs.get("images", ())))
        return predict(self, inputs)

    monkeypatch.setattr(ContextSegmentor, "_predict_alone", spy)
    figures, weights = [], None
    for kind in ("yaml", "py"):
        caplog.clear()
        cfg = configs(kind, **ON[kind])
        run(cfg, arguments())
        assert not seen
        weights = weights or str(next(tmp_path.glob("0/model_final.pth")))
        cfg = configs(kind, **ON[kind], **{WEIGHTS[kind]: weights})
        figures.append(run(cfg, arguments(eval_only=True))["sem_seg"])
        assert seen == [2, 2, 2, 2]
        seen.clear()
        cfg = configs(kind, **{WEIGHTS[kind]: weights})
        single = run(cfg, arguments(eval_only=True))["sem_seg"]
        assert single != figures[-1] and not seen
    assert figures[0] == pytest.approx(figures[1], nan_ok=True)


def test_mappers_of_both_configs(configs, tmp_path):
    yaml, lazy = (configs(kind, **ON[kind]) for kind in ("yaml", "py"))
    mappers = SemSegMapper(yaml, False), instantiate(lazy.dataloader.test.mapper)
    path = str(tmp_path / "picture.png")
    Image.fromarray(image(72, 96).permute(1, 2, 0).numpy()).save(path)
    records = [mapper({"file_name": path}) for mapper in mappers]
    assert [tuple(x.shape) for x in records[0]["images"]] == [(3, 36, 48), (3, 72, 96)]
    for mine, other in zip(records[0]["images"], records[1]["images"], strict=True):
        assert torch.equal(mine, other)
    assert records[0]["flip"] and records[1]["flip"] and "image" not in records[0]


def test_other_models_are_refused_in_one_line(configs, tmp_path):
    cfg = configs("yaml", **ON["yaml"], **{"MODEL.META_ARCHITECTURE": "SemanticSegmentor"})
    with pytest.raises(UsageError, match=r"TEST\.AUG\.ENABLED: SemanticSegmentor .*Context"):
        run(cfg, arguments(eval_only=True))
    cfg = configs("py", **ON["py"])
    cfg.model._target_ = SemanticSegmentor
    del cfg.model.pad_size
    with pytest.raises(UsageError, match=r"multi_scale_flip.*SemanticSegmentor .*Context"):
        run(cfg, arguments(eval_only=True))


@pytest.mark.parametrize("scales", ["()", "(0.5, 0.0)", "(-1.0,)"])
def test_wrong_scales_are_one_line(configs, scales):
    cfg = configs("yaml", **{"TEST.AUG.ENABLED": True, "TEST.AUG.SCALES": scales})
    with pytest.raises(UsageError, match=r"TEST\.AUG\.SCALES"):
        SemSegMapper(cfg, False)
