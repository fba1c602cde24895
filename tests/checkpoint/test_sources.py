"""Every kind of public file goes through the converter: found out, described, complete."""

import pickle

import pytest
import torch

from dnl_d2.checkpoint import SOURCES, detect_source, read_weights
from dnl_d2.checkpoint.convert_file import convert_file
from dnl_d2.errors import UsageError
from dnl_d2_parity.references import mmdet1, mmseg, paddleseg
from dnl_d2_parity.references.weights import random_state
from tests.checkpoint import test_authors_detection, test_authors_segmentation, test_resnets
from tests.checkpoint.models import SEGMENTOR, build
from tests.meta import on_meta


def _mmseg(method):
    return {"state_dict": mmseg.build(method, width=16).state_dict(), "meta": {}}


def _mmdet(cascade):
    model, _ = test_authors_detection._gcnet(cascade)
    return {"state_dict": model.state_dict(), "meta": {}}


def _gcnet(cascade):
    _, file = test_authors_detection._gcnet(cascade)
    return {"state_dict": file}


def _dnl_det(kind):
    model = test_authors_detection._dnl_det(kind)
    return {"state_dict": mmdet1.old_file(model.state_dict())}


def _authors(name):
    network = test_authors_segmentation.authors_network(name)
    return {
        "config_dict": None if name == "ann" else test_authors_segmentation.config_dict(name),
        "state_dict": test_authors_segmentation.published(network),
    }


def _paddle(method):
    state = paddleseg.public_state(paddleseg.build(method))
    names = {"StructuredToParameterName@@": {"a": "b"}}
    return {key: value.numpy() for key, value in state.items()} | names


def _classifier(name):
    return test_resnets.classifier(name).state_dict()


def _openmmlab(name, prefix="", head=""):
    """A backbone of mmsegmentation with mmpretrain's or the third party's classifier."""
    from mmseg.models import backbones

    with on_meta():
        model = getattr(backbones, name)(depth=50, norm_cfg={"type": "BN"})
    state = {prefix + key: value for key, value in random_state(model).items()}
    return state | {f"{head}fc.weight": torch.zeros(2, 2048), f"{head}fc.bias": torch.zeros(2)}


def _bare(prefix):
    model = build(SEGMENTOR, MODEL__RESNETS__STEM_TYPE="basic").backbone
    return {"model": {prefix + key: value for key, value in model.state_dict().items()}}


# name: (content of the file, source, words of the description)
FILES = {
    **{
        f"mmseg {m}": (lambda m=m: _mmseg(m), "mmseg", f"v1c stem), {m.upper()} head, 19 classes")
        for m in ("fcn", "nl", "gc", "dnl", "ann")
    },
    "mmdet": (lambda: _mmdet(False), "mmdet", "GC blocks in the backbone, Mask R-CNN, 5 classes"),
    "mmdet cascade": (lambda: _mmdet(True), "mmdet", "ResNeXt-50 (basic stem), GC blocks in"),
    "gcnet": (lambda: _gcnet(False), "gcnet", "Mask R-CNN, 5 classes"),
    "gcnet cascade": (lambda: _gcnet(True), "gcnet", "Cascade Mask R-CNN, 5 classes"),
    "dnl-det": (lambda: _dnl_det("dnl"), "dnl-det", "DNL blocks in the backbone, Mask R-CNN"),
    "dnl-det nl": (lambda: _dnl_det("nl"), "dnl-det", "NL blocks in the backbone, Mask R-CNN"),
    **{
        f"dnl-seg {name}": (lambda name=name: _authors(name), "dnl-seg", words)
        for name, words in (
            ("temp_in", "DNL head, 19 classes"),
            ("nl", "DNL head, 19 classes"),
            ("gc", "GC head, 19 classes"),
            ("fcn", "FCN head, 19 classes"),
        )
    },
    "ann": (lambda: _authors("ann"), "ann", "ANN head, 19 classes"),
    **{
        f"paddleseg {m}": (lambda m=m: _paddle(m), f"paddleseg-{m}", f"{word} head, 19 classes")
        for m, word in (("dnl", "DNL"), ("gcnet", "GC"), ("ann", "ANN"))
    },
    "torchvision": (lambda: _classifier("resnet18"), "torchvision", "ResNet-18"),
    "torchvision resnext": (
        lambda: _classifier("resnext50_32x4d"),
        "torchvision",
        "ResNeXt-50 (basic stem)",
    ),
    "timm c": (lambda: _classifier("resnet50c"), "timm-resnet-c", "ResNet-50 (v1c stem)"),
    "timm d": (lambda: _classifier("resnet50d"), "timm-resnet-d", "ResNet-50 (v1c stem)"),
    "openmmlab v1c": (lambda: _openmmlab("ResNetV1c"), "openmmlab-v1c", "ResNet-50 (v1c stem)"),
    "openmmlab v1d": (
        lambda: {"state_dict": _openmmlab("ResNetV1d", "backbone.", "head."), "meta": {}},
        "openmmlab-v1d",
        "ResNet-50 (v1c stem)",
    ),
    "ours": (
        lambda: {"model": build(SEGMENTOR).state_dict()},
        "detectron2",
        "ResNet-18 (v1c stem), DNL head, 19 classes",
    ),
    "bare": (lambda: _bare(""), "detectron2-backbone", "ResNet-18 (basic stem)"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_found_out_and_complete(name, tmp_path):
    content, source, words = FILES[name]
    path = tmp_path / ("in.pdparams" if name.startswith("paddle") else "in.pth")
    if name.startswith("paddle"):
        path.write_bytes(pickle.dumps(content(), protocol=4))  # as paddle.save does
    else:
        torch.save(content(), path)
    assert detect_source(read_weights(path).state).name == source
    config = str(tmp_path / "model.yaml")
    report = convert_file(str(path), str(tmp_path / "out.pth"), write_config=config)
    assert words in report
    assert "missing    0" in report and "unexpected 0" in report
    if not source.startswith(("torchvision", "timm-", "openmmlab-", "detectron2-backbone")):
        again = convert_file(str(path), str(tmp_path / "again.pth"), config_file=config)
        assert "missing    0" in again and "unexpected 0" in again


def test_all_sources_are_tried():
    tried = {source for _, source, _ in FILES.values()}
    elsewhere = {"msra", "torchcv", "paddleseg-backbone", "mmseg-v1d"}  # have tests of their own
    own = [s for s in SOURCES if "dnl_d2.checkpoint" in _module(s)]  # projects add theirs
    assert tried | elsewhere == {source.name for source in own}


def _module(source):
    """Where a source's rules are written."""
    return getattr(source.rules, "func", source.rules).__module__


@pytest.mark.parametrize("key", ["", "a", ".", "a.b", "bias", "1.bias", "fusion.bias", "_bn_s"])
def test_no_key_is_too_strange_to_be_looked_at(key):
    for source in SOURCES:
        assert not source.recognises({key: torch.zeros(1)})
    with pytest.raises(UsageError, match="not a model this library knows"):
        detect_source({key: torch.zeros(1)})


def test_a_family_can_be_named():
    state = _paddle("gcnet")
    state.pop("StructuredToParameterName@@")
    state = {key: torch.from_numpy(value) for key, value in state.items()}
    assert detect_source(state, "paddleseg").name == "paddleseg-gcnet"
    assert detect_source(state, "paddleseg-gcnet").name == "paddleseg-gcnet"
    with pytest.raises(UsageError, match="not a file of timm"):
        detect_source(state, "timm")
    with pytest.raises(UsageError, match="unknown source 'paddle'"):
        detect_source(state, "paddle")
