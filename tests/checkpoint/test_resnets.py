"""ImageNet ResNets of torchvision, timm and Caffe2: features against their own models."""

import pickle

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.resnet import build_resnet_backbone

from dnl_d2.checkpoint.convert import convert, convert_back, detect_source
from dnl_d2.checkpoint.describe.architecture import build_config, infer_settings
from dnl_d2.checkpoint.keymap import Converted, strip_prefix
from dnl_d2.checkpoint.reading import read_weights
from dnl_d2.checkpoint.source import CAFFE_BGR
from dnl_d2.checkpoint.sources import msra
from dnl_d2.checkpoint.sources import timm as timm_source
from dnl_d2.checkpoint.sources import torchvision as torchvision_source
from dnl_d2.modeling import build_context_resnet
from dnl_d2_parity.references import mmseg  # noqa: F401  (makes the package importable)
from dnl_d2_parity.references.weights import random_state
from tests.checkpoint.models import assert_equal, assert_near, with_counters
from tests.meta import on_meta

STAGES = ["res2", "res3", "res4", "res5"]
# Odd numbers at every stage: 75, 38, 19, 10, 5, 3 and 101, 51, 26, 13, 7, 4.
IMAGE = torch.randn(1, 3, 75, 101, generator=torch.Generator().manual_seed(1))
RESNET_D, RESNET_C = timm_source.SOURCES
SOURCES = (torchvision_source.SOURCE, RESNET_D, RESNET_C, msra.SOURCE)


def classifier(name, small="bn3"):
    """A network of torchvision or timm with random weights, without their initialisation."""
    with on_meta():
        if hasattr(torchvision.models, name):
            model = getattr(torchvision.models, name)(weights=None)
        else:
            model = timm.create_model(name)
    model.load_state_dict(random_state(model, small=small), assign=True)
    return model.eval()


def stages(model, x):
    """The feature maps of torchvision's and timm's ResNets."""
    for name in ("conv1", "bn1"):
        x = getattr(model, name)(x)
    x = model.maxpool(x.relu())
    features = []
    for i in range(1, 5):
        x = getattr(model, f"layer{i}")(x)
        features.append(x)
    return features


def ours(converted: Converted, source, **settings):
    """The backbone that the weights and their source describe, loaded strictly."""
    assert not converted.unexpected
    settings = {
        **infer_settings(converted.state),
        **source.settings,
        "MODEL.RESNETS.OUT_FEATURES": STAGES,
        **settings,
    }
    with on_meta():
        model = build_backbone(build_config(settings), ShapeSpec(channels=3))
    model.load_state_dict(strip_prefix(converted.state, "backbone."), assign=True)
    return model.eval()


def assert_same_features(got, expected, bar=1e-4):
    for name, theirs in zip(STAGES, expected, strict=True):
        assert_near(got[name], theirs, bar)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("resnet18", torchvision_source.SOURCE),
        ("resnet50", torchvision_source.SOURCE),
        ("resnext50_32x4d", torchvision_source.SOURCE),
        ("resnet50c", RESNET_C),
        ("resnet50d", RESNET_D),
        ("resnet101d", RESNET_D),
        ("resnet18d", RESNET_D),
    ],
)
def test_features_are_those_of_the_published_network(name, source, tmp_path):
    theirs = classifier(name, "bn2" if "18" in name else "bn3")
    torch.save(theirs.state_dict(), tmp_path / "classifier.pth")
    public = read_weights(tmp_path / "classifier.pth").state
    assert next(s for s in SOURCES if s.recognises(public)) is source
    converted = convert(public, source)
    assert converted.dropped == dict.fromkeys(["fc.weight", "fc.bias"], "ImageNet classifier")
    with torch.no_grad():
        assert_same_features(ours(converted, source)(IMAGE), stages(theirs, IMAGE))


@pytest.mark.parametrize(
    ("name", "source", "setting"),
    [
        ("resnet50d", RESNET_D, {"MODEL.RESNETS.SHORTCUT": "conv"}),
        ("resnet50", torchvision_source.SOURCE, {"MODEL.RESNETS.STRIDE_IN_1X1": True}),
    ],
)
def test_the_settings_matter(name, source, setting):
    theirs = classifier(name)
    converted = convert(theirs.state_dict(), source)
    with torch.no_grad():
        got, expected = ours(converted, source, **setting)(IMAGE), stages(theirs, IMAGE)
    assert not torch.allclose(got["res5"], expected[3], rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("resnext50_32x4d", torchvision_source.SOURCE),
        ("resnet50c", RESNET_C),
        ("resnet50d", RESNET_D),
    ],
)
def test_there_and_back(name, source):
    public = classifier(name).state_dict()
    back = convert_back(convert(public, source).state, source)
    assert not back.unexpected
    assert_equal(back.state, {k: v for k, v in public.items() if not k.startswith("fc.")})


@pytest.mark.parametrize(("name", "shortcut"), [("ResNetV1c", "conv"), ("ResNetV1d", "avg_pool")])
def test_mmsegmentations_backbones_at_stride_8(name, shortcut):
    from mmseg.models import backbones

    with on_meta():
        theirs = getattr(backbones, name)(
            depth=50,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract_dilation=True,
            norm_cfg={"type": "BN"},
        )
    theirs.load_state_dict(random_state(theirs, small="bn3"), assign=True)
    converted = convert(theirs.state_dict(), detect_source(theirs.state_dict()))
    with on_meta():
        model = build_context_resnet(
            depth=50, stem="v1c", shortcut=shortcut, output_stride=8, out_features=STAGES
        )
    model.load_state_dict(strip_prefix(converted.state, "backbone."), assign=True)
    model.eval()
    theirs.eval()
    with torch.no_grad():
        assert_same_features(model(IMAGE), theirs(IMAGE))


# Ours without the stage and block -> Caffe2's.
_BLOBS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
_PARTS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def blob_name(key):
    """``res2.0.conv1.norm.weight`` -> ``res2_0_branch2a_bn_s``."""
    stage, block, *rest = key.split(".")
    stem = "conv1" if stage == "stem" else f"{stage}_{block}_{_BLOBS[rest.pop(0)]}"
    if rest == ["weight"]:
        return f"{stem}_w"
    assert rest[0] == "norm"
    return f"{'res_' if stage == 'stem' else ''}{stem}_bn_{_PARTS[rest[1]]}"


def detectron2_resnet(stride_in_1x1=True):
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = STAGES
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    return build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()


def blobs(*, statistics):
    """A file of ImageNetPretrained/MSRA: scale and shift, or with statistics of their own."""
    with on_meta():
        model = detectron2_resnet()
    state = {
        blob_name(key): value.numpy()
        for key, value in random_state(model, small="conv3.norm").items()
        if statistics or "running" not in key
    }
    return state | {
        "conv1_b": torch.zeros(64).numpy(),
        "fc1000_w": torch.ones(1000, 2048).numpy(),
        "fc1000_b": torch.ones(1000).numpy(),
        "conv1_w_momentum": state["conv1_w"],
        "res2_0_branch2a_w_momentum": state["res2_0_branch2a_w"],
    }


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("statistics", [False, True])
def test_msra_as_detectron2_loads_it(statistics, norm, tmp_path):
    path = tmp_path / "R-50.pkl"
    with open(path, "wb") as file:
        pickle.dump({"blobs": blobs(statistics=statistics)}, file, protocol=2)
    theirs = detectron2_resnet()
    untouched = theirs.res5[2].conv3.weight.clone()
    DetectionCheckpointer(theirs).load(str(path))
    assert not torch.equal(theirs.res5[2].conv3.weight, untouched)

    public = read_weights(path).state
    assert next(s for s in SOURCES if s.recognises(public)) is msra.SOURCE
    converted = convert(public, msra.SOURCE)
    assert set(converted.dropped) == {
        "conv1_b",
        "fc1000_w",
        "fc1000_b",
        "conv1_w_momentum",
        "res2_0_branch2a_w_momentum",
    }
    if norm == "BN":
        converted.state = with_counters(converted.state)
    model = ours(converted, msra.SOURCE, **{"MODEL.RESNETS.NORM": norm})
    with torch.no_grad():
        got, expected = model(IMAGE), theirs(IMAGE)
    bar = 0.0 if norm == "FrozenBN" else 1e-6
    assert_same_features(got, [expected[name] for name in STAGES], bar)
    assert msra.SOURCE.input_format is CAFFE_BGR


def test_msra_with_group_norm():
    public = {
        "conv1_w": torch.ones(64, 3, 7, 7),
        "conv1_gn_s": torch.ones(64),
        "conv1_gn_b": torch.zeros(64),
        "res2_0_branch2a_w": torch.ones(64, 64, 1, 1),
        "res2_0_branch2a_gn_s": torch.full((64,), 2.0),
        "res2_0_branch1_gn_b": torch.full((256,), 3.0),
    }
    converted = convert(public, msra.SOURCE)
    assert list(converted.state) == [
        "backbone.stem.conv1.weight",
        "backbone.stem.conv1.norm.weight",
        "backbone.stem.conv1.norm.bias",
        "backbone.res2.0.conv1.weight",
        "backbone.res2.0.conv1.norm.weight",
        "backbone.res2.0.shortcut.norm.bias",
    ]


def test_msra_there_and_back():
    public = {k: torch.from_numpy(v) for k, v in blobs(statistics=True).items()}
    converted = convert(public, msra.SOURCE)
    back = convert_back(converted.state, msra.SOURCE).state
    assert_equal(back, {k: v for k, v in public.items() if k not in converted.dropped})
