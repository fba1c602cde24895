"""Configs of the zoo's detectors with a block: they are the zoo's model, and fit its weights."""

import logging
from functools import partial

import msgspec
import pytest
import torch
from detectron2.modeling import build_model

from dnl_d2.checkpoint.reading import WeightsFile
from dnl_d2.checkpoint.translate import to_model
from dnl_d2.config.loading import load_config_file, zoo_config
from dnl_d2.data.datasets.coco_schema import CocoForm
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS
from dnl_d2.own_data.detector_config import (
    CocoFacts,
    CocoSet,
    ZooDetector,
    as_config,
    as_yaml,
    coco_facts,
)

FACTS = CocoFacts(classes=80, images=400, masks=True, run_lengths=False)
TRAIN = CocoSet("own_train", "/data/train.json", "/data/train")
TEST = CocoSet("own_val", "/data/val.json", "/data/val")
MODELS = [
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x",
    "COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x",
    "COCO-Detection/retinanet_R_50_FPN_3x",
    "Misc/cascade_mask_rcnn_R_50_FPN_3x",
    "Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn",
]


def settings(name, block="gc", facts=FACTS, test=TEST):
    detector = ZooDetector(name)
    schedule = detector.schedule(facts.images, 4)
    return detector.config(block, facts, TRAIN, test, schedule=schedule, output_dir="out")


def build(cfg):
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(cfg)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_zoos_model_with_blocks(name, caplog):
    cfg = as_config(settings(name))
    model, theirs = build(cfg), build(zoo_config(f"{name}.yaml"))
    state, published = model.state_dict(), theirs.state_dict()
    assert {key for key in state if ".context." not in key} == published.keys()
    assert all(state[key].shape == value.shape for key, value in published.items())
    assert len({key for key in state if key.endswith("context.unary.weight")}) >= 10
    for part in ("pixel_mean", "pixel_std"):
        values = torch.tensor(cfg.MODEL[part.upper()]).view(-1, 1, 1)
        model.register_buffer(part, values, persistent=False)
    weights = WeightsFile(dict(published), path=cfg.MODEL.WEIGHTS)
    with caplog.at_level(logging.INFO, "dnl_d2"):
        to_model(weights, model, channel_order=cfg.INPUT.FORMAT, heuristics=False)
    assert not caplog.records


@pytest.mark.parametrize("block", CONTEXT_BLOCKS)
def test_every_block_goes_in(block):
    names = build(as_config(settings(MODELS[0], block))).state_dict()
    assert any(name.startswith("backbone.bottom_up.res4.4.context.") for name in names)


def test_the_file_is_the_config(tmp_path):
    written = settings(MODELS[4])
    path = tmp_path / "mine.yaml"
    path.write_text(as_yaml(written, "on own data"))
    cfg = load_config_file(str(path))
    assert cfg == as_config(written)
    assert cfg.MODEL.RETINANET.NUM_CLASSES == 80 and cfg.INPUT.FORMAT == "BGR"
    assert cfg.DATASETS.COCO[1]["JSON"] == "/data/val.json"
    solver = cfg.SOLVER
    assert (solver.MAX_ITER, solver.WARMUP_ITERS, solver.STEPS) == (3600, 180, (2400, 3200))
    assert pytest.approx(0.01 * 4 / 16) == solver.BASE_LR
    assert cfg.TEST.EVAL_PERIOD == solver.CHECKPOINT_PERIOD == 360


def test_masks_as_the_file_has_them():
    without = CocoFacts(classes=3, images=9, masks=False, run_lengths=False)
    assert settings(MODELS[0], facts=without)["MODEL.MASK_ON"] is False
    pixels = CocoFacts(classes=3, images=9, masks=True, run_lengths=True)
    assert settings(MODELS[0], facts=pixels)["INPUT.MASK_FORMAT"] == "bitmask"
    assert "TEST.EVAL_PERIOD" not in settings(MODELS[0], test=None)


def test_the_facts_of_a_file():
    box, polygon = (1.0, 1.0, 4.0, 4.0), [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
    run_lengths = {"size": [9, 9], "counts": [81]}
    entries = [
        {"image_id": 1, "iscrowd": 1, "segmentation": run_lengths},
        {"image_id": 2, "segmentation": polygon},
        {"image_id": 2},
    ]
    content = {
        "images": [{"id": n, "height": 9, "width": 9, "file_name": f"{n}.png"} for n in (1, 2)],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(2)],
        "annotations": [
            {"id": n, "category_id": 1, "bbox": box, **e} for n, e in enumerate(entries)
        ],
    }
    read = partial(msgspec.convert, type=CocoForm)
    assert coco_facts(read(content)) == CocoFacts(2, 1, masks=True, run_lengths=False)
    entries[2]["segmentation"] = run_lengths
    content["annotations"] = [
        {"id": n, "category_id": 1, "bbox": box, **e} for n, e in enumerate(entries)
    ]
    assert coco_facts(read(content)).run_lengths
    content["annotations"].append({"image_id": 1, "category_id": 1, "bbox": (1.0, 1.0, 0.0, 4.0)})
    assert coco_facts(read(content)).images == 1
    content["annotations"] = None
    assert coco_facts(read(content)) == CocoFacts(2, 0, masks=False, run_lengths=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask_rcnn_R_50_FPN_2x", "no trained 'mask_rcnn_R_50_FPN_2x'; .* has COCO-Instance"),
        ("mask_rcnn_R_50_FPN_1x", "may be any of .*: write one of these"),
        ("ImageNetPretrained/MSRA/R-50", "no trained"),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x", "is for keypoints; take"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x", "is no detector with boxes alone"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x", "is fed proposals from files"),
        ("new_baselines/mask_rcnn_R_50_FPN_400ep_LSJ", "has no YAML file"),
    ],
)
def test_models_that_do_not_suit_are_named(name, message):
    with pytest.raises(UsageError, match=f"--model.*{message}"):
        ZooDetector(name)
