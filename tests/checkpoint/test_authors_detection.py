"""Files of GCNet's and DNL's detection repositories give those networks' outputs."""

import functools

import numpy as np
import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.box_regression import Box2BoxTransform

from dnl_d2.checkpoint.convert import convert, convert_back
from dnl_d2.checkpoint.sources import dnl_det, gcnet, mmdet
from dnl_d2.layers import build_context_block
from dnl_d2.modeling.anchors import LegacyAnchorGenerator
from dnl_d2_parity.references import mmdet as reference
from dnl_d2_parity.references import mmdet1
from tests.checkpoint.detectors import (
    CONV_HEAD,
    GC,
    GC_CASCADE,
    assert_same_heads,
    assert_same_levels,
    build,
    load,
)
from tests.checkpoint.models import assert_equal
from tests.reference.disentangled import disentangled
from tests.reference.global_context import global_context, simplified_non_local
from tests.reference.non_local import non_local

_DNL_CONFIGS = {
    "dnl": {"NAME": "dnl", "PRESET": "paper-det"},
    "snl": {"NAME": "snl"},
    "gc": {"NAME": "gc", "RATIO": 0.25},
    "nl": {"NAME": "nl", "REDUCTION": 4},
}
_ORACLES = {
    "dnl": disentangled,
    "snl": simplified_non_local,
    "gc": global_context,
    "nl": non_local,
}
# Public name -> ours, by hand.
_LAYERS = {
    "conv_query": "query",
    "conv_key": "key",
    "conv_value": "value",
    "conv_mask": "unary",
    "theta.conv": "query",
    "phi.conv": "key",
    "g.conv": "value",
    "conv_out.conv": "project",
    "channel_add_conv": "channel_add",
}
_RATIOS = [0.5, 1.0, 2.0]
_EDGE = np.array([0, 0, 1, 1])  # from the last pixel to the end of it


@functools.cache
def _gcnet(cascade):
    """A network of GCNet's, and its file in MMDetection 1.x's form."""
    config = reference.gc_cascade() if cascade else reference.published_config(reference.GC)
    reference.shrink(config)
    theirs = reference.build(config, seed=3)
    return theirs, mmdet1.old_file(theirs.state_dict())


@pytest.mark.parametrize("cascade", [False, True])
def test_gcnet(cascade):
    theirs, file = _gcnet(cascade)
    assert gcnet.SOURCE.recognises(file) and not dnl_det.SOURCE.recognises(file)
    ours = build(gcnet.SOURCE, GC_CASCADE if cascade else GC)
    load(ours, file, gcnet.SOURCE)
    generator = torch.Generator().manual_seed(4)
    assert_same_levels(ours, theirs, torch.rand(1, 3, 64, 96, generator=generator))
    assert_same_heads(ours, theirs, generator)


@pytest.mark.parametrize("cascade", [False, True])
def test_gcnet_round_trip(cascade):
    _, file = _gcnet(cascade)
    ours = convert(file, gcnet.SOURCE).state
    back = convert_back(ours, gcnet.SOURCE)
    assert not back.unexpected
    assert {k: v.shape for k, v in back.state.items()} == {k: v.shape for k, v in file.items()}
    assert_equal(convert(back.state, gcnet.SOURCE).state, ours)


def test_class_order():
    """Class 0 is the background: its score moves to the end, its regressors go."""
    rows = torch.arange(4.0)  # background, then three classes
    boxes = torch.arange(16.0)
    file = {
        "bbox_head.fc_cls.bias": rows,
        "bbox_head.fc_reg.bias": boxes,
        "mask_head.conv_logits.bias": rows,
    }
    ours = convert(file, gcnet.SOURCE).state
    assert ours["roi_heads.box_predictor.cls_score.bias"].tolist() == [1, 2, 3, 0]
    assert ours["roi_heads.box_predictor.bbox_pred.bias"].tolist() == list(range(4, 16))
    assert ours["roi_heads.mask_head.predictor.bias"].tolist() == [1, 2, 3]
    back = convert_back(ours, gcnet.SOURCE).state
    assert torch.equal(back["bbox_head.fc_cls.bias"], rows)
    assert torch.equal(back["bbox_head.fc_reg.bias"][4:], boxes[4:])
    assert torch.equal(back["mask_head.conv_logits.bias"][1:], rows[1:])
    agnostic = {"bbox_head.fc_reg.bias": boxes[:4], "mask_head.conv_logits.bias": rows[:1]}
    kept = convert(agnostic, gcnet.SOURCE).state
    assert [len(value) for value in kept.values()] == [4, 1]


@functools.cache
def _dnl_det(kind):
    """A network of DNL's repository: 4conv1fc, In-Place ABN, blocks after the addition."""
    config = reference.published_config("gcnet/mask-rcnn_r50-syncbn_fpn_1x_coco.py")
    reference.conv_head(config)
    reference.shrink(config)
    model = reference.build(config, seed=5)
    if kind is not None:
        # c4 and, as for DNL, all of c5
        places = [(3, 4)] + ([(4, 0), (4, 1), (4, 2)] if kind == "dnl" else [])
        mmdet1.insert_after_add(model.backbone, kind, places)
        model.load_state_dict(reference.random_state(model, seed=6))
    mmdet1.use_abn(model)
    return model.eval()


def _dnl_settings(kind):
    if kind is None:
        return {}
    stages = {"RES4": [-2], "RES5": ["all"] if kind == "dnl" else []}
    return {f"MODEL.RESNETS.CONTEXT.{k}": v for k, v in _DNL_CONFIGS[kind].items()} | {
        f"MODEL.RESNETS.CONTEXT_STAGES.{k}": v for k, v in stages.items()
    }


@pytest.mark.parametrize("kind", [*mmdet1.BLOCKS, None])
def test_dnl_det(kind):
    theirs = _dnl_det(kind)
    file = mmdet1.old_file(theirs.state_dict())
    assert not any("num_batches_tracked" in key for key in file)
    assert dnl_det.SOURCE.recognises(file)
    ours = build(dnl_det.SOURCE, CONV_HEAD, _dnl_settings(kind))
    state = load(ours, file, dnl_det.SOURCE)
    generator = torch.Generator().manual_seed(7)
    assert_same_levels(ours, theirs, torch.rand(1, 3, 64, 96, generator=generator))
    assert_same_heads(ours, theirs, generator)
    back = convert_back(ours.state_dict(), dnl_det.SOURCE)
    assert not back.unexpected
    assert_equal(convert(back.state, dnl_det.SOURCE).state, state)


@pytest.mark.parametrize("kind", mmdet1.BLOCKS)
def test_block(kind):
    """In float64: theirs, ours with their weights, and the loops of the equations."""
    name, make = mmdet1.BLOCKS[kind]
    theirs, generator = make(16).double(), torch.Generator().manual_seed(8)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    x = torch.randn(2, 16, 3, 4, dtype=torch.float64, generator=generator)
    place = f"backbone.layer3.4.{name}"
    file = {f"{place}.{key}": value for key, value in theirs.state_dict().items()}
    state = convert(file, dnl_det.SOURCE).state
    options = {key.lower(): value for key, value in _DNL_CONFIGS[kind].items()}
    ours = build_context_block(options, 16).double()
    ours.load_state_dict({k.removeprefix("backbone.res4.4.context."): v for k, v in state.items()})
    with torch.no_grad():
        wanted = theirs(x)
        torch.testing.assert_close(ours(x), wanted, rtol=1e-9, atol=1e-9)
    params = {}
    for key, value in theirs.state_dict().items():
        layer = next((layer for layer in _LAYERS if key.startswith(f"{layer}.")), None)
        ours_key = key if layer is None else key.replace(layer, _LAYERS[layer], 1)
        params[ours_key] = value.numpy()
    oracle = _ORACLES[kind](params, options, x.numpy()).output
    np.testing.assert_allclose(wanted.numpy(), oracle, rtol=1e-9, atol=1e-9)


def test_sources_are_told_apart():
    new, (_, old) = _gcnet(False)[0].state_dict(), _gcnet(False)
    plain = {key: value for key, value in old.items() if "context_block" not in key}
    known = (mmdet.SOURCE, dnl_det.SOURCE, gcnet.SOURCE)  # in the order in which they are asked

    def first(state):
        return next(source.name for source in known if source.recognises(state))

    assert first(new) == "mmdet"
    assert first(old) == first(plain) == "gcnet"
    for kind, (name, make) in mmdet1.BLOCKS.items():
        block = make(16).state_dict()
        file = plain | {f"backbone.layer3.4.{name}.{key}": v for key, v in block.items()}
        # GC alone looks the same in both repositories, but for DNL's norms.
        assert first(file) == ("gcnet" if kind == "gc" else "dnl-det")
        uncounted = {key: v for key, v in file.items() if "num_batches_tracked" not in key}
        assert first(uncounted) == "dnl-det"


def test_legacy_anchors():
    levels = [(4, (3, 5)), (16, (2, 2)), (64, (1, 2))]
    generator = LegacyAnchorGenerator(
        sizes=[[8 * stride] for stride, _ in levels],
        aspect_ratios=[_RATIOS],
        strides=[stride for stride, _ in levels],
    )
    assert not generator.state_dict()
    found = generator([torch.zeros(1, 1, *size) for _, size in levels])
    for boxes, (stride, size) in zip(found, levels, strict=True):
        wanted = mmdet1.anchors(size, stride, 8, _RATIOS) + _EDGE
        np.testing.assert_array_equal(boxes.tensor.numpy(), wanted)


def test_legacy_anchors_from_config():
    generator = build(gcnet.SOURCE).proposal_generator.anchor_generator
    assert isinstance(generator, LegacyAnchorGenerator)
    cells = list(generator.cell_anchors)
    assert [len(cell) for cell in cells] == [3] * 5
    wanted = mmdet1.anchors((1, 1), 32, 8, _RATIOS) + _EDGE
    np.testing.assert_array_equal(cells[3].numpy(), wanted)


def test_legacy_boxes():
    """Their boxes are Detectron2's, but for where the right and lower edge are written down."""
    rng, stds = np.random.default_rng(0), (0.033, 0.033, 0.067, 0.067)
    weights = gcnet.SOURCE.settings["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"][2]
    for _ in range(5):
        box = np.concatenate([rng.uniform(0, 20, 2), rng.uniform(25, 90, 2)])
        delta = rng.normal(size=4)
        ours = Box2BoxTransform(weights).apply_deltas(
            torch.from_numpy(delta)[None], torch.from_numpy(box + _EDGE)[None]
        )
        # Detectron2 works in fp32.
        np.testing.assert_allclose(
            ours[0].numpy(), mmdet1.decode(box, delta, stds) + _EDGE, rtol=1e-5, atol=1e-5
        )


def test_legacy_roi_align():
    settings, rng = gcnet.SOURCE.settings, np.random.default_rng(1)
    feature, box = rng.normal(size=(20, 24)), np.array([7.3, 5.9, 61.2, 48.8])
    pooler = ROIAlign(
        7,
        1 / 4,
        settings["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"],
        aligned=settings["MODEL.ROI_BOX_HEAD.POOLER_TYPE"] == "ROIAlignV2",
    )
    rois = torch.from_numpy(np.concatenate([[0], box + _EDGE]))[None]
    found = pooler(torch.from_numpy(feature)[None, None], rois)[0, 0]
    np.testing.assert_allclose(found.numpy(), mmdet1.roi_align(feature, box, 1 / 4, 7), rtol=1e-9)
