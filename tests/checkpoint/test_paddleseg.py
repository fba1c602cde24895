"""PaddleSeg's checkpoints: logits against its networks, as projects/parity restates them."""

import math
import pickle

import pytest
import torch
from detectron2.layers import Conv2d
from detectron2.modeling import build_model

from dnl_d2.checkpoint.convert import convert, convert_back
from dnl_d2.checkpoint.describe.architecture import build_config, infer_settings
from dnl_d2.checkpoint.keymap import strip_prefix
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.checkpoint.sources import paddleseg
from dnl_d2.layers import build_context_block
from dnl_d2_parity.differences import relative
from dnl_d2_parity.references import paddleseg as reference
from dnl_d2_parity.references.weights import random_state
from tests.checkpoint import test_resnets
from tests.checkpoint.models import assert_equal, assert_near, with_counters
from tests.meta import on_meta

SOURCES = {source.name.removeprefix("paddleseg-"): source for source in paddleseg.SOURCES}
# 65 -> 33, 17, 9 and 97 -> 49, 25, 13 positions.
IMAGE = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))
HEAD = "MODEL.SEM_SEG_HEAD"
ALIGNED = {f"{HEAD}.ALIGN_CORNERS": True, f"{HEAD}.HALF_PIXEL_CENTERS": True}
# Projections that would saturate the attention.
SATURATING = ("theta", "phi", "conv_mask", "f_key", "f_query")


def published(method, **options):
    """A network with random weights, without PyTorch's initialisation of them."""
    with on_meta():
        model = reference.build(method, **options)
    state = random_state(model, small="conv2._batch_norm")
    for key, value in state.items():
        if value.dim() == 4 and any(part in key for part in SATURATING):
            value *= 0.1
    for key in state:  # one layer under two names
        if key.startswith("head.context.1.stages.0.f_query"):
            state[key] = state[key.replace("f_query", "f_key")]
    model.load_state_dict(state, assign=True)
    return model


def save(state, path):
    """As ``paddle.save`` does: arrays by name, and a table of Paddle's internal names."""
    content = {key: value.numpy() for key, value in state.items()}
    content["StructuredToParameterName@@"] = {k: f"param_{i}" for i, k in enumerate(content)}
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)


def ours(converted, source, **settings):
    """The model that the weights and their source describe, loaded strictly."""
    assert not converted.unexpected and not converted.dropped
    settings = {**infer_settings(converted.state), **source.settings, **settings}
    cfg = build_config(settings | {"MODEL.DEVICE": "meta"})
    with on_meta():
        model = build_model(cfg)
    model.load_state_dict(with_counters(converted.state), assign=True)
    return model.eval()


def logits(model):
    features = model.backbone(IMAGE)
    head = model.sem_seg_head
    return [head(features)[0], head.auxiliary(features)[0]]


@pytest.mark.parametrize(
    ("method", "align_corners", "classes", "depth"),
    [
        ("dnl", False, 19, 50),
        ("dnl", True, 21, 50),
        ("gcnet", False, 150, 50),
        ("gcnet", True, 19, 101),
        ("ann", False, 21, 50),
    ],
)
def test_logits_are_those_of_the_published_network(method, align_corners, classes, depth, tmp_path):
    theirs = published(method, align_corners=align_corners, num_classes=classes, depth=depth)
    save(reference.public_state(theirs), tmp_path / "model.pdparams")
    public = read_weights(tmp_path / "model.pdparams").state
    assert [name for name, source in SOURCES.items() if source.recognises(public)] == [method]
    source = SOURCES[method]
    model = ours(convert(public, source), source, **(ALIGNED if align_corners else {}))
    with torch.no_grad():
        for got, expected in zip(logits(model), theirs(IMAGE), strict=True):
            assert_near(got, expected)


def test_the_settings_of_dnlnet_matter():
    theirs = published("dnl")
    source = SOURCES["dnl"]
    converted = convert(reference.public_state(theirs), source)
    with torch.no_grad():
        expected = theirs(IMAGE)[0]
        for key in source.settings:
            other = {"PRESET": "mmseg", "SHORTCUT": "conv"}.get(key.rpartition(".")[2], True)
            got = logits(ours(converted, source, **{key: other}))[0]
            assert 1e-2 < relative(got, expected) < math.inf


@pytest.mark.parametrize("method", ["dnl", "gcnet", "ann"])
def test_there_and_back(method):
    """All but the biases before norms, which are in the running means from then on."""
    public = reference.public_state(published(method))
    source = SOURCES[method]
    converted = convert(public, source)
    back = convert_back(converted.state, source)
    assert not back.unexpected
    biases = {key for key in public if key.endswith("_conv.bias")}
    assert bool(biases) is (method != "dnl")
    assert back.state.keys() == public.keys() - biases
    for key, value in back.state.items():
        if key.replace("_batch_norm._mean", "_conv.bias") not in biases:
            assert torch.equal(value, public[key]), key
    assert_equal(convert(back.state, source).state, converted.state)


@pytest.mark.parametrize("training", [False, True])
def test_a_bias_before_a_norm_goes_into_its_mean(training):
    theirs = reference.ConvNorm(5, 7, 3).double()
    theirs.load_state_dict({k: v.double() for k, v in random_state(theirs).items()})
    public = {f"head.conv_bn_relu1.{k}": v for k, v in reference.public_state(theirs).items()}
    state = convert(public, SOURCES["gcnet"]).state
    mine = Conv2d(
        5, 7, 3, padding=1, bias=False, norm=torch.nn.BatchNorm2d(7), activation=torch.relu
    )
    mine.double().load_state_dict(with_counters(strip_prefix(state, "sem_seg_head.convs.0.")))
    x = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    mine.train(training)
    theirs.train(training)
    with torch.no_grad():
        assert_near(mine(x), theirs(x), 1e-9)
    bias = theirs._conv.bias.detach()
    torch.testing.assert_close(mine.norm.running_mean, theirs._batch_norm.running_mean - bias)


@pytest.mark.parametrize(
    ("block", "spec", "head", "theirs"),
    [
        ("dnl_block", {"name": "dnl", "preset": "paddleseg", "norm": "BN"}, "dnl", "DnlBlock"),
        ("gc_block", {"name": "gc", "ratio": 0.25}, "gcnet", "GcBlock"),
    ],
)
def test_blocks_in_float64(block, spec, head, theirs):
    theirs = getattr(reference, theirs)(16).double().eval()
    theirs.load_state_dict({k: v.double() for k, v in random_state(theirs).items()})
    public = {f"head.{block}.{k}": v for k, v in reference.public_state(theirs).items()}
    state = convert(public, SOURCES[head]).state
    mine = build_context_block(spec, 16).double().eval()
    mine.load_state_dict(with_counters(strip_prefix(state, "sem_seg_head.context_block.")))
    x = torch.randn(2, 16, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        assert_near(mine(x), theirs(x), 1e-9)


@pytest.mark.parametrize(
    ("path", "block", "spec", "theirs"),
    [
        ("fusion", "fusion", {"name": "afnb", "low_channels": 1024}, reference.Afnb),
        ("context.1", "context", {"name": "apnb"}, reference.Apnb),
    ],
)
def test_asymmetric_blocks_in_float64(path, block, spec, theirs):
    with on_meta():
        theirs = theirs().eval()
        channels = theirs.conv_bn._conv.out_channels
        mine = build_context_block({**spec, "inter_channels": 256}, channels).eval()
    theirs.load_state_dict(random_state(theirs), assign=True)
    theirs.double()
    public = {f"head.{path}.{k}": v for k, v in reference.public_state(theirs).items()}
    state = convert(public, SOURCES["ann"]).state
    mine.load_state_dict(with_counters(strip_prefix(state, f"sem_seg_head.{block}.")), assign=True)
    x = torch.randn(1, channels, 9, 13, dtype=torch.float64)
    with torch.no_grad():
        if block == "fusion":
            low = torch.randn(1, 1024, 11, 8, dtype=torch.float64)
            assert_near(mine(x, low=low), theirs(low, x), 1e-9)
        else:
            assert_near(mine(x), theirs(x), 1e-9)


def test_a_bare_backbone():
    theirs = published("dnl").backbone
    public = reference.public_state(theirs)
    public |= {"out.weight": torch.ones(2048, 1000), "out.bias": torch.ones(1000)}
    assert [name for name, s in SOURCES.items() if s.recognises(public)] == ["backbone"]
    source = SOURCES["backbone"]
    converted = convert(public, source)
    assert set(converted.dropped) == {"out.weight", "out.bias"}
    converted.state = with_counters(converted.state)
    model = test_resnets.ours(converted, source, **{"MODEL.RESNETS.OUTPUT_STRIDE": 8})
    with torch.no_grad():
        test_resnets.assert_same_features(model(IMAGE), theirs(IMAGE))
