"""Predictions of single pictures against the evaluation of the same run."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

import dnl_d2
from dnl_d2.data import register_sem_seg_folder
from dnl_d2.engine import load_config, run
from dnl_d2.engine.runner import read_config
from dnl_d2.engine.training import build_model
from dnl_d2.errors import UsageError
from dnl_d2.prediction import Detections, Segmentation
from tests.engine.runs import (  # noqa: F401
    LAZY_OPTIONS,
    SMALL_DETECTOR,
    STEM,
    YAML_OPTIONS,
    arguments,
    as_lazy,
    as_yaml,
    environment,
    pictures,
)

pytestmark = pytest.mark.usefixtures("environment")
SLIDE = {"TEST__SLIDE__WINDOW": "(48,48)", "TEST__SLIDE__STRIDE": "(32,32)"}
AUGMENT = {"TEST__AUG__ENABLED": True, "TEST__AUG__SCALES": "(0.5,1.25)"}
LAZY_AUGMENT = {"dataloader__test__mapper__multi_scale_flip__enabled": "true"}
DETECTOR = "generated/mask_rcnn_r18w32_fpn_gc_r4_c3-c5_300_generated-instances"


def save_weights(cfg, path):
    """Random ones: every class must be predicted somewhere, which trained ones need not do."""
    torch.manual_seed(0)
    model = build_model(read_config(cfg, train=False))
    for name, value in model.state_dict().items():
        if "predictor.bias" in name or "conv_seg.bias" in name:
            value.normal_()
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize(
    ("ending", "options"),
    [(".yaml", {}), (".yaml", SLIDE), (".yaml", AUGMENT), (".py", {}), (".py", LAZY_AUGMENT)],
    ids=["whole", "sliding", "ms+flip", "lazy", "lazy ms+flip"],
)
def test_figures_are_those_of_the_evaluation(ending, options, tmp_path, datasets):
    words = (as_yaml, YAML_OPTIONS) if ending == ".yaml" else (as_lazy, LAZY_OPTIONS)
    overrides = words[0](words[1], output=str(tmp_path), **options)
    weights = save_weights(load_config(STEM + ending, overrides), tmp_path / "weights.pth")
    cfg = load_config(STEM + ending, [*overrides, *words[0]({}, weights=weights)])
    expected = run(cfg, arguments(eval_only=True))["sem_seg"]
    predict = dnl_d2.Predictor(STEM + ending, weights=weights, device="cpu", overrides=overrides)
    if options in (AUGMENT, LAZY_AUGMENT):  # by the key that the config's own system has
        key = next(iter(options))
        with pytest.raises(UsageError, match=f"switch {key.replace('__', '.')} off"):
            dnl_d2.export_model(predict, tmp_path / "x.pt2", format="torch-export")
    confusion = np.zeros((8, 8))
    for file in sorted((datasets / "generated" / "val").iterdir()):
        found = predict(file)
        truth = np.asarray(Image.open(str(file).replace("/val/", "/valannot/")))
        known = truth != 255
        pairs = truth[known].astype(int) * 8 + np.asarray(found)[known]
        confusion += np.bincount(pairs, minlength=64).reshape(8, 8)
    right = confusion.diagonal()
    with np.errstate(invalid="ignore"):
        ious = right / (confusion.sum(0) + confusion.sum(1) - right)
    there = confusion.sum(1) > 0
    assert 100 * ious[there].mean() == pytest.approx(expected["mIoU"], rel=1e-12)
    assert 100 * right.sum() / confusion.sum() == pytest.approx(expected["pACC"], rel=1e-12)
    assert isinstance(found, Segmentation) and "texture_a" in found.classes


def test_a_lazyconfig_without_a_test_set(tmp_path, datasets):
    """As tools/check_dataset.py writes it where there is no set for validation."""
    overrides = as_lazy(LAZY_OPTIONS, output=str(tmp_path))
    cfg = load_config(STEM + ".py", overrides)
    weights = save_weights(cfg, tmp_path / "weights.pth")
    whole = dnl_d2.Predictor(cfg, weights=weights, device="cpu")
    file = next((datasets / "generated" / "val").iterdir())
    del cfg.dataloader.test
    found = dnl_d2.Predictor(cfg, weights=weights, device="cpu")(file)
    assert (np.asarray(found) == np.asarray(whole(file))).all()


@pytest.fixture
def predictor(tmp_path):
    weights = save_weights(load_config(STEM + ".yaml", as_yaml(YAML_OPTIONS)), tmp_path / "w.pth")
    return dnl_d2.Predictor(
        STEM + ".yaml", weights=weights, device="cpu", overrides=as_yaml(YAML_OPTIONS)
    )


def test_a_picture_may_come_in_any_form(predictor, save, rng):
    array = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    expected = np.asarray(predictor(array))
    assert expected.shape == (40, 52) and len(np.unique(expected)) > 1
    path = save("x.png", array)
    for same in (path, Image.fromarray(array), Image.open(path)):
        assert (np.asarray(predictor(same)) == expected).all()
    grey = array[..., 0]
    for same in (grey, Image.fromarray(grey), save("grey.png", grey)):
        assert (np.asarray(predictor(same)) == np.asarray(predictor(grey))).all()
    for mode in ("RGBA", "CMYK", "P", "1", "LA"):
        assert np.asarray(predictor(Image.fromarray(array).convert(mode))).shape == (40, 52)
    assert np.asarray(predictor(array[:1, :1])).shape == (1, 1)


def test_classes_are_named_by_the_first_set_that_knows_them(tmp_path):
    weights = save_weights(load_config(STEM + ".yaml", as_yaml(YAML_OPTIONS)), tmp_path / "w.pth")
    register_sem_seg_folder("prediction_test_pictures", str(tmp_path))
    options = as_yaml(YAML_OPTIONS | {"DATASETS.TEST": "('prediction_test_pictures',)"})
    predict = dnl_d2.Predictor(STEM + ".yaml", weights=weights, device="cpu", overrides=options)
    assert "texture_a" in predict(np.zeros((20, 30, 3), np.uint8)).classes
    with pytest.raises(UsageError, match="a score is 0 to 1, and min_score is 50"):
        dnl_d2.Predictor(STEM + ".yaml", weights=weights, device="cpu", min_score=50)


def test_a_photograph_is_turned_as_it_is_seen(predictor, save, rng):
    array = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # a quarter to the right
    path = save("x.png", array, exif=exif)
    found = predictor(path)
    assert found.image.shape == (52, 40, 3)
    assert (np.asarray(found) == np.asarray(predictor(np.rot90(array, -1).copy()))).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3)), "an array of float64 and shape"),
        (np.zeros((4, 4, 4), np.uint8), "an array with 4 channels"),
        (np.zeros((0, 4, 3), np.uint8), "is no picture"),
        ("none.png", "none.png does not exist"),
    ],
)
def test_what_is_no_picture(predictor, picture, message):
    with pytest.raises(UsageError, match=message):
        predictor(picture)


def test_weights_are_needed(tmp_path):
    options = as_yaml(YAML_OPTIONS, weights="")
    with pytest.raises(UsageError, match=r"a prediction needs trained weights: set MODEL.WEIGHTS"):
        dnl_d2.Predictor(STEM + ".yaml", device="cpu", overrides=options)
    wider = as_yaml(YAML_OPTIONS, width=64)
    weights = save_weights(load_config(STEM + ".yaml", as_yaml(YAML_OPTIONS)), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"a prediction: .* the config is of another model"):
        dnl_d2.Predictor(STEM + ".yaml", weights=weights, device="cpu", overrides=wider)
    with pytest.raises(UsageError, match=r"no config file dnl_r5.*there is no recipe"):
        dnl_d2.Predictor("dnl_r5", device="cpu")


@pytest.mark.parametrize("scales", [False, True], ids=["one size", "TTA"])
def test_objects_are_those_of_the_evaluation(pictures, tmp_path, monkeypatch, scales):  # noqa: F811
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pictures))
    path = dnl_d2.model_zoo.get_config_file(DETECTOR)
    more = {"TEST__AUG__ENABLED": scales, "MODEL__DEVICE": "cpu"}
    options = as_yaml(SMALL_DETECTOR, output=str(tmp_path), **more)
    weights = save_weights(load_config(path, options), tmp_path / "weights.pth")
    run(load_config(path, [*options, "MODEL.WEIGHTS", weights]), arguments(eval_only=True))
    folder = tmp_path / ("inference_TTA" if scales else "inference")
    (file,) = folder.rglob("coco_instances_results.json")
    expected = json.loads(file.read_text())
    predict = dnl_d2.Predictor(
        DETECTOR, weights=weights, device="cpu", overrides=options, min_score=0.0
    )
    with pytest.raises(UsageError, match=r"1 rows and 3000 columns .*too narrow"):
        predict(np.zeros((1, 3000, 3), np.uint8))
    meta = MetadataCatalog.get("generated_instances_val")
    for image in json.loads(Path(meta.json_file).read_text())["images"]:
        found = predict(os.path.join(meta.image_root, image["file_name"]))
        assert isinstance(found, Detections) and len(found) > 0
        theirs = [entry for entry in expected if entry["image_id"] == image["id"]]
        ours = found.summary()["objects"]
        assert [entry["bbox"] for entry in ours] == [entry["bbox"] for entry in theirs]
        assert [e["segmentation"] for e in ours] == [e["segmentation"] for e in theirs]
        assert found.draw().shape == found.image.shape
    best = predict.min_score = max(entry["score"] for entry in ours)
    assert [entry["score"] for entry in predict(found.image).summary()["objects"]] == [best]
