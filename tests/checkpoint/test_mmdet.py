"""MMDetection's files give MMDetection's outputs."""

import functools

import pytest
import torch

from dnl_d2.checkpoint.convert import compare, convert, convert_back
from dnl_d2.checkpoint.describe.architecture import expected_parameters, infer_settings
from dnl_d2.checkpoint.sources.mmdet import SOURCE
from dnl_d2.errors import UsageError
from dnl_d2_parity.references import mmdet as reference
from tests.checkpoint.detectors import (
    CONV_HEAD,
    GC,
    GC_CASCADE,
    assert_same_heads,
    build,
    load,
)
from tests.checkpoint.models import assert_equal, assert_near

_NL = {
    "MODEL.RESNETS.CONTEXT.NAME": "nl",
    "MODEL.RESNETS.CONTEXT_STAGES.RES4": ["all"],
}


def _gc():
    return reference.published_config(reference.GC)


def _nl(sub_sample=False, postfix=""):
    config = reference.published_config(reference.GC)
    plugin = dict(reference.NON_LOCAL_C4["cfg"], sub_sample=sub_sample, postfix=postfix)
    config.backbone.plugins = [dict(reference.NON_LOCAL_C4, cfg=plugin)]
    return config


def _conv_head():
    config = _gc()
    reference.conv_head(config)
    return config


_MODELS = {
    "gc": (_gc, GC),
    "nl": (_nl, _NL),
    "cascade": (reference.gc_cascade, GC_CASCADE),
    "4conv1fc": (_conv_head, {**GC, **CONV_HEAD}),
}


@functools.cache
def _pair(name):
    """Their model and ours with its weights, strictly loaded."""
    config, settings = _MODELS[name]
    config = config()
    reference.shrink(config)
    theirs = reference.build(config, seed=1)
    fewer = {
        "MODEL.RPN.PRE_NMS_TOPK_TEST": reference.PROPOSALS["nms_pre"],
        "MODEL.RPN.POST_NMS_TOPK_TEST": reference.PROPOSALS["max_per_img"],
        "TEST.DETECTIONS_PER_IMAGE": reference.DETECTIONS,
    }
    ours = build(SOURCE, settings, fewer)
    load(ours, theirs.state_dict(), SOURCE)
    return theirs, ours


@pytest.fixture(scope="module")
def image():
    """``(3, 65, 97)`` with edges and colours, as photographs have."""
    y, x = torch.meshgrid(torch.arange(65.0), torch.arange(97.0), indexing="ij")
    channels = [((x - 40) ** 2 + (y - 20) ** 2 < 300), (x + 2 * y) % 50 < 20, x / 97 > 0.6]
    noise = torch.rand(3, 65, 97, generator=torch.Generator().manual_seed(0))
    return (torch.stack([c.float() for c in channels]) * 150 + noise * 100).round()


@pytest.mark.parametrize("name", _MODELS)
def test_network(name, image):
    theirs, ours = _pair(name)
    inputs, levels, _ = reference.features(theirs, image)
    images = ours.preprocess_image([{"image": image}])
    assert_near(images.tensor, inputs, 1e-6)
    with torch.no_grad():
        found = list(ours.backbone(images.tensor).values())
        for mine, wanted in zip(found, levels, strict=True):
            assert_near(mine, wanted)
        for mine, wanted in zip(
            ours.proposal_generator.rpn_head(found), theirs.rpn_head(levels), strict=True
        ):
            for m, w in zip(mine, wanted, strict=True):
                assert_near(m, w)


@pytest.mark.parametrize("name", _MODELS)
def test_heads(name):
    theirs, ours = _pair(name)
    assert_same_heads(ours, theirs, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", _MODELS)
def test_detections(name, image):
    theirs, ours = _pair(name)
    wanted = reference.detect(theirs, image)
    with torch.no_grad():
        found = ours.inference([{"image": image, "height": 65, "width": 97}])[0]["instances"]
    assert len(wanted) >= 10
    assert found.pred_classes.tolist() == wanted.labels.tolist()
    assert_near(found.scores, wanted.scores)
    assert_near(found.pred_boxes.tensor, wanted.bboxes)
    assert wanted.masks.any() and not wanted.masks.all()
    assert (found.pred_masks != wanted.masks).float().mean() < 1e-4


@pytest.mark.parametrize("name", _MODELS)
def test_round_trip(name):
    theirs, ours = _pair(name)
    back = convert_back(ours.state_dict(), SOURCE)
    assert not back.unexpected
    assert_equal(back.state, theirs.state_dict())


def test_classes_in_another_order_would_show(image):
    theirs, ours = _pair("gc")
    boxes = torch.randn(6, 256, 7, 7, generator=torch.Generator().manual_seed(2))
    predictor = ours.roi_heads.box_predictor.cls_score
    right = predictor.weight.detach().clone()
    with torch.no_grad():
        predictor.weight.copy_(right.roll(1, 0))
        found = ours.roi_heads.box_predictor(ours.roi_heads.box_head(boxes))[0]
        predictor.weight.copy_(right)
        with pytest.raises(AssertionError):
            assert_near(found, theirs.roi_head.bbox_head(boxes)[0])


def _backbone_state(config):
    with torch.device("meta"):
        model = reference.MODELS.build(dict(config.backbone, _scope_="mmdet", init_cfg=None))
    return {f"backbone.{key}": value for key, value in model.state_dict().items()}


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("postfix", ["", 1, "_a"])
def test_names_of_plugins(sub_sample, postfix):
    state = _backbone_state(_nl(sub_sample, postfix))
    assert any(f".nonlocal_block{postfix}." in key for key in state)
    converted = convert(state, SOURCE)
    assert not converted.unexpected
    blocks = {key.split(".context.")[1] for key in converted.state if ".context." in key}
    layers = ("query", "key", "value", "project")
    assert blocks == {f"{layer}.{p}" for layer in layers for p in ("weight", "bias")}


def test_deformable_convolutions_are_named_and_placed():
    config = reference.published_config(
        "gcnet/cascade-mask-rcnn_x101-32x4d-syncbn-dconv-c3-c5-r4-gcb-c3-c5_fpn_1x_coco.py"
    )
    config.backbone.plugins = None
    converted = convert(_backbone_state(config), SOURCE)
    assert not converted.unexpected
    settings = infer_settings(converted.state)
    assert settings["MODEL.RESNETS.DEFORM_ON_PER_STAGE"] == [False, True, True, True]
    compared = compare(converted.state, expected_parameters(settings))
    assert not (compared.missing or compared.mismatched or compared.unexpected)
    assert len(compared.matched) == len(converted.state)
    start = "backbone.res4.1.conv2"
    found = {k[len(start) :]: v.shape for k, v in converted.state.items() if k.startswith(start)}
    # Names and shapes of detectron2.modeling.backbone.resnet.DeformBottleneckBlock, which can only
    # be built where Detectron2's compiled part is.
    assert found.pop(".weight") == (512, 16, 3, 3)
    assert found.pop("_offset.weight") == (18, 512, 3, 3)
    assert found.pop("_offset.bias") == (18,)
    assert all(name.startswith(".norm.") for name in found)


def test_generalized_attention_is_refused():
    config = reference.published_config(
        "empirical_attention/faster-rcnn_r50-attn1111_fpn_1x_coco.py"
    )
    with pytest.raises(UsageError, match="generalized attention"):
        convert(_backbone_state(config), SOURCE)


def test_cascade_with_boxes_by_class_is_refused():
    state = {"roi_head.bbox_head.0.fc_reg.weight": torch.zeros(20, 8)}
    with pytest.raises(UsageError, match="reg_class_agnostic"):
        convert(state, SOURCE)
