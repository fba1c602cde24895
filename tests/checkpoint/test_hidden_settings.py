"""What no parameter shows: silent where a config fits its weights, one line where it does not."""

import logging
import pickle
import re

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from dnl_d2 import model_zoo
from dnl_d2.checkpoint import Checkpointer, convert_back, get_source
from dnl_d2.checkpoint.hidden_settings import differences
from dnl_d2.checkpoint.reading import WeightsFile
from dnl_d2.checkpoint.translate import to_model
from dnl_d2.checkpoint.zoo_settings import zoo_settings
from dnl_d2.engine import load_config
from dnl_d2.engine.from_lazy import _channel_order
from dnl_d2.modeling.from_config import build_from_config
from tests.checkpoint.models import assert_near
from tests.meta import on_meta
from tests.modeling.detectors import FPN_ANCHORS, randomised, zoo_config

ZOO_FILE = "model_final_f10217.pkl"
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
RGB_MEAN, RGB_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PLAIN = {"MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}
OTHERS = {
    "MODEL.PIXEL_MEAN": RGB_MEAN,
    "MODEL.PIXEL_STD": RGB_STD,
    "INPUT.FORMAT": "RGB",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.ANCHOR_GENERATOR.NAME": "LegacyAnchorGenerator",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [5.0, 5.0, 5.0, 5.0],
}
# What the weights of the recipes are files of; those of the zoo have our names.
SOURCES = {
    "resnet50-19c8e357": "torchvision",
    "resnet101-5d3b4d8f": "torchvision",
    "resnext101_32x4d": "torchvision",
    "resnet50_v1c": "openmmlab-v1c",
    "resnet101_v1c": "openmmlab-v1c",
    "MSRA/R-50": "msra",
    ZOO_FILE: None,
}


# Lines of a recipe by which it may differ from another of its base.
TELLING = re.compile(
    r"_BASE_|WEIGHTS|PIXEL|FORMAT|STRIDE|SHORTCUT|CORNERS|POOLER|ANCHOR|PADDING|"
    r"init_checkpoint|pixel|image_format|stride|shortcut|corners|pooler|anchor|padding"
)


def recipes(root):
    """Configs with weights, one for each set of telling lines."""
    found = {}
    for name in model_zoo.list():
        for file in root.glob(f"configs/{name}.*"):
            lines = [line for line in file.read_text().splitlines() if TELLING.search(line)]
            found.setdefault((file.parent, file.suffix, *lines), str(file))
    for file in found.values():
        cfg = load_config(file)
        if cfg.MODEL.WEIGHTS if isinstance(cfg, CfgNode) else cfg.train.init_checkpoint:
            yield file, cfg


def public_state(model, weights):
    """The keys of a recipe's weights; their values do not matter."""
    (source,) = [name for part, name in SOURCES.items() if part in weights]
    state = model.state_dict()
    if source is None:
        return state
    backbone = {k: v for k, v in state.items() if "backbone." in k and "context" not in k}
    return convert_back(
        {k: v for k, v in backbone.items() if "fpn" not in k}, get_source(source)
    ).state


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_recipes_are_silent_about_the_weights_that_they_name(root, caplog):
    checked = 0
    for path, cfg in recipes(root):
        lazy = path.endswith(".py")
        with on_meta():
            model = build_from_config(path, device="meta")
        weights = cfg.train.init_checkpoint if lazy else cfg.MODEL.WEIGHTS
        pixels = (cfg.model.pixel_mean, cfg.model.pixel_std) if lazy else (
            cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
        )  # fmt: skip
        for name, values in zip(("pixel_mean", "pixel_std"), pixels, strict=True):
            model.register_buffer(name, torch.tensor(list(values)).view(-1, 1, 1), False)
        file = WeightsFile(public_state(model, weights), path=weights)
        order = _channel_order(cfg) if lazy else cfg.INPUT.FORMAT
        with caplog.at_level(logging.INFO):
            to_model(file, model, channel_order=order, heuristics=False)
        assert not [text for text in warnings(caplog) if "other settings" in text], path
        assert "first convolution" not in caplog.text, path
        checked += 1
    assert checked >= 12


def build(*settings, seed=1):
    torch.manual_seed(seed)
    return build_model(zoo_config(f"{MASK_RCNN}.yaml", FPN_ANCHORS, PLAIN, *settings)).eval()


def write(path, model, **rest):
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": state, **rest}))
    return str(path)


def load(model, path, order):
    Checkpointer(model, channel_order=order).resume_or_load(path, resume=False)


@torch.no_grad()
def features(model, image):
    images = model.preprocess_image([{"image": image}])
    return model.backbone(images.tensor)


def test_a_zoo_file_in_another_config_is_one_warning_with_every_key(tmp_path, caplog):
    path = write(tmp_path / ZOO_FILE, build())
    load(build(OTHERS), path, "RGB")
    (line,) = warnings(caplog)
    assert line.startswith(f"{MASK_RCNN} of Detectron2's model zoo was trained with other settings")
    assert "MODEL.RESNETS.STRIDE_IN_1X1 (LazyConfig: stride_in_1x1) True" in line
    assert (
        "MODEL.ANCHOR_GENERATOR.NAME (LazyConfig: anchor_generator._target_) DefaultAnchorGenerator"
        in line
    )
    assert "MODEL.ANCHOR_GENERATOR.SIZES (LazyConfig: anchor_generator.sizes) [[32], [64]," in line
    assert "MODEL.ROI_BOX_HEAD.POOLER_TYPE (LazyConfig: box_pooler.pooler_type) ROIAlignV2" in line
    assert (
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO (LazyConfig: mask_pooler.sampling_ratio) 0"
        in line
    )
    assert (
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS (LazyConfig: box2box_transform.weights) [10, 10, 5, 5]"
        in line
    )
    assert "ROI_BOX_HEAD.POOLER_SAMPLING" not in line and "CASCADE" not in line


def test_with_these_keys_it_is_silent_and_colours_are_fitted(tmp_path, caplog):
    anchors = {"MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]]}
    colours = {k: v for k, v in OTHERS.items() if "PIXEL" in k or "FORMAT" in k}
    theirs = randomised(build())
    ours = build(colours, anchors, seed=2)
    with caplog.at_level(logging.INFO):
        load(ours, write(tmp_path / ZOO_FILE, theirs), "RGB")
    assert not warnings(caplog) and "input channels swapped (published as BGR)" in caplog.text
    image = torch.rand(3, 64, 96) * 255
    for name, value in features(theirs, image).items():
        assert_near(features(ours, image.flip(0))[name], value)


def test_only_shared_parts_are_compared(tmp_path, caplog):
    retina = zoo_config("COCO-Detection/retinanet_R_50_FPN_3x.yaml", PLAIN)
    load(build_model(retina), write(tmp_path / ZOO_FILE, build()), "BGR")
    assert not [text for text in warnings(caplog) if "other settings" in text]


def test_a_mean_that_cannot_be_fitted_is_in_the_same_line(tmp_path, caplog):
    changes = {"MODEL.PIXEL_MEAN": [127.5, 127.5, 127.5], "MODEL.RESNETS.STRIDE_IN_1X1": False}
    load(build(OTHERS, changes), write(tmp_path / ZOO_FILE, build()), "RGB")
    (line,) = warnings(caplog)
    assert "INPUT.FORMAT (LazyConfig: the mappers' image_format) BGR" in line
    assert "[103.53, 116.28, 123.675]" in line and "STRIDE_IN_1X1" in line


def test_a_renamed_zoo_file_is_known_by_its_author(tmp_path, caplog):
    path = write(tmp_path / "mine.pkl", build(), __author__="Detectron2 Model Zoo")
    load(build(), path, "BGR")
    assert not warnings(caplog)
    load(build(OTHERS), path, "RGB")
    (line,) = warnings(caplog)
    assert "BGR (INPUT.FORMAT)" in line and "PIXEL_MEAN (LazyConfig: pixel_mean) [103.53," in line


def test_a_checkpoint_of_unknown_origin_is_taken_as_it_is(tmp_path, caplog):
    theirs, ours = build(), build(OTHERS, seed=2)
    load(ours, write(tmp_path / "model_final.pkl", theirs), "RGB")
    assert not warnings(caplog)
    stem = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(ours.state_dict()[stem], theirs.state_dict()[stem])


def test_torchvisions_file_of_the_zoo_in_detectron2s_default_config(tmp_path, caplog):
    theirs = build().backbone.bottom_up
    path = write(tmp_path / "R-50.pkl", theirs, __author__="torchvision", matching_heuristics=True)
    ours = build(seed=2)
    load(ours, path, "BGR")
    (line,) = [text for text in warnings(caplog) if "other settings" in text]
    assert "torchvision" in line and "STRIDE_IN_1X1 (LazyConfig: stride_in_1x1) False" in line
    scale = 1 / torch.tensor(RGB_STD).view(1, 3, 1, 1)
    expected = (theirs.stem.conv1.weight * scale).flip(1)
    torch.testing.assert_close(ours.backbone.bottom_up.stem.conv1.weight, expected)


@pytest.mark.parametrize(
    ("name", "std", "stride_in_1x1"),
    [("X-101-32x8d.pkl", 57.375, False), ("R-50-GN.pkl", 1.0, False), ("R-52.pkl", 58.395, False)],
)
def test_classifiers_told_by_their_names(name, std, stride_in_1x1):
    found = zoo_settings(f"cache/detectron2/ImageNetPretrained/{name}", {})
    assert found.input_format.std[0] == std
    assert found.settings == {"MODEL.RESNETS.STRIDE_IN_1X1": stride_in_1x1}


@pytest.mark.parametrize("style", ["caffe", "pytorch"])
def test_the_style_that_a_file_of_openmmlab_tells(style):
    rest = {"meta": {"cfg": f"backbone=dict(type='ResNet', depth=50, style='{style}')"}}
    for name in ("mmseg", "mmdet", "gcnet"):
        told = get_source(name).settings_of(rest, {"MODEL.RESNETS.STRIDE_IN_1X1": False})
        assert told["MODEL.RESNETS.STRIDE_IN_1X1"] is (style == "caffe")
    found = zoo_settings("resnet50_msra-5891d200.pth", {})
    assert found.settings == {"MODEL.RESNETS.STRIDE_IN_1X1": True}
    assert found.input_format.channel_order == "BGR"
    assert zoo_settings("resnet50_v1c-2cccc1ad.pth", {}) is None


def test_heuristics_still_match_a_resnet_under_another_name(tmp_path):
    theirs = build().backbone.bottom_up
    path = write(tmp_path / "R-50.pkl", theirs, __author__="torchvision", matching_heuristics=True)
    ours = torch.nn.ModuleDict({"encoder": build(seed=2).backbone.bottom_up})
    load(ours, path, None)
    weight = ours["encoder"].res2[0].conv1.weight
    assert torch.equal(weight, theirs.res2[0].conv1.weight)


def test_a_plain_resnet_in_one_whose_shortcuts_pool(tmp_path, caplog):
    plain = build().backbone.bottom_up.state_dict()
    state = convert_back({f"backbone.{k}": v for k, v in plain.items()}, get_source("torchvision"))
    torch.save(dict(state.state), tmp_path / "resnet.pth")
    ours = build({"MODEL.RESNETS.SHORTCUT": "avg_pool"}, seed=2)
    load(ours, str(tmp_path / "resnet.pth"), "BGR")
    (line,) = [text for text in warnings(caplog) if "other settings" in text]
    assert "MODEL.RESNETS.SHORTCUT (LazyConfig: shortcut) conv" in line


def test_weights_of_mmdetection_2_do_not_fit_the_authors_recipes_silently():
    recipe = model_zoo.get_config_file("coco/mask_rcnn_r50_fpn_gc_r16_c3-c5_fixbn_1x")
    model = build_from_config(recipe, device="meta")
    trained = get_source("mmdet").settings_of({}, {})
    said = [line.split()[0] for line in differences(model, model.state_dict(), trained)]
    assert said == [
        "MODEL.RESNETS.CONTEXT_MASK_PADDING",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE",
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
    ]
