"""Detectron2's DefaultPredictor gives a segmentation config's predictions of its evaluation."""

import csv
import logging

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from PIL import Image

from dnl_d2.data import read_image
from dnl_d2.engine import load_config, run
from tests.engine.runs import arguments, as_yaml, environment  # noqa: F401

CLASSES = ["a", "b", "c"]
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 16,
    "MODEL.SEM_SEG_HEAD.AUXILIARY.CONVS_DIM": 8,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "DATALOADER.NUM_WORKERS": 0,
}
SLIDE = {"TEST.SLIDE.WINDOW": "(33,41)", "TEST.SLIDE.STRIDE": "(24,24)"}
AUGMENT = {"TEST.AUG.ENABLED": True, "TEST.AUG.SCALES": "(0.5,1.25)"}
# A recipe, the base size to scale down or up to (empty: none), and how it is tested.
TESTS = {
    "as stored": ("camvid/fcn_r18w32-d8_4k_camvid-240x320", "()", {}),
    "base size": ("ade20k/dnl_r50-d8_80k_ade20k-512x512", "(50,40)", {}),
    "sliding": ("cityscapes/dnl_r50-d8_80k_cityscapes-769x769", "(97,65)", SLIDE),
    "ms+flip": ("voc12aug/gc_r50-d8_20k_voc12aug-512x512", "(60,60)", AUGMENT),
    "both": ("pascal-context/dnl_r50-d8_40k_pascal-context-59-480x480", "()", SLIDE | AUGMENT),
    "BGR": ("camvid/nl_r18w32-d8_700_camvid-240x320", "(60,50)", {"INPUT.FORMAT": "BGR"}),
}
pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def own(tmp_path, save, rng):
    """A config that inherits from a recipe, with pictures of several modes and sizes."""
    for number, mode in enumerate(("RGB", "L", "P", "RGBA")):
        size = (40 + 9 * number, 64 - 7 * number)
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        save(f"images/{number}.png", picture.convert(mode))
        save(f"labels/{number}.png", rng.integers(0, 3, size, dtype=np.uint8))

    def write(root, recipe, **options):
        path = tmp_path / "own.yaml"
        path.write_text(f"""
_BASE_: {root}/configs/{recipe}.yaml
DATASETS:
  FOLDERS:
  - {{NAME: own_val, IMAGES: {tmp_path}/images, LABELS: {tmp_path}/labels, CLASSES: [a, b, c]}}
  TEST: [own_val]
OUTPUT_DIR: {tmp_path}/out
""")
        return load_config(str(path), as_yaml(TINY, **options))

    return write


def confusion_of(predict, folder):
    """Rows are the truth."""
    matrix = np.zeros((3, 3), int)
    for path in sorted(folder.glob("images/*")):
        label = np.asarray(Image.open(folder / "labels" / path.name))
        found = predict(cv2.imread(str(path)))["sem_seg"].argmax(0).numpy()
        np.add.at(matrix, (label, found), 1)
    return matrix


@pytest.mark.parametrize("recipe, base_size, options", TESTS.values(), ids=TESTS)
def test_predictions_are_those_of_the_evaluation(root, own, tmp_path, recipe, base_size, options):
    cfg = own(root, recipe, INPUT__RESIZE__BASE_SIZE=base_size, **options)
    torch.manual_seed(0)
    model = build_model(cfg)
    weight = torch.nn.init.normal_(model.sem_seg_head.predictor.weight.data)
    weight -= weight.mean(1, keepdim=True)  # all classes are predicted
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    run(cfg, arguments(eval_only=True))
    with open(tmp_path / "out/inference/own_val/confusion_matrix.csv") as file:
        evaluated = np.array([row[1:] for row in list(csv.reader(file))[1:]], int)
    assert (evaluated.sum(0) > 0).all()
    assert (confusion_of(DefaultPredictor(cfg), tmp_path) == evaluated).all()


def test_read_image_reads_as_the_evaluation(save, rng):
    """16 bits, and a picture that its EXIF entry would turn."""
    deep = rng.integers(0, 2**16, (4, 6), dtype=np.uint16)
    expected = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2)
    assert (read_image(save("deep.png", Image.fromarray(deep)), "BGR") == expected).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(save("turned.png", expected, exif=exif), "BGR").shape == (4, 6, 3)


@pytest.mark.parametrize("size", [0, 800])
def test_a_size_that_spoils_predictions_is_told(own, root, caplog, size):
    with caplog.at_level(logging.WARNING):
        build_model(own(root, TESTS["as stored"][0], INPUT__MIN_SIZE_TEST=size))
    assert ("INPUT.MIN_SIZE_TEST is 800" in caplog.text) == bool(size)
