"""Code bases, classifiers and clips that the library itself does not have."""

import logging

import pytest
import torch
import torchvision
from torch import nn

from dnl_d2.checkpoint import (
    IMAGENET_RGB,
    SOURCES,
    Checkpointer,
    Rule,
    Source,
    convert,
    detect_source,
    get_source,
    register_source,
)
from dnl_d2.checkpoint.sources import torchvision as torchvision_source
from dnl_d2.errors import UsageError
from dnl_d2.modeling import build_context_resnet
from tests.checkpoint.models import SEGMENTOR, build


class Classifier(nn.Module):
    """A ResNet-18 that reads images, and names 10 classes."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.backbone = build_context_resnet(depth=18, stem="basic", out_features=["res5"])
        self.classifier = nn.Linear(512, classes)

    def forward(self, x):
        return self.classifier(self.backbone(x)["res5"].mean((2, 3)))


class Clips(nn.Module):
    """What a network of clips may share with one of images: its stem, and its classifier."""

    def __init__(self, frames: int):
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_RGB.mean), persistent=False)
        self.register_buffer("pixel_std", torch.ones(3), persistent=False)
        self.backbone = nn.ModuleDict({"stem": nn.ModuleDict()})
        self.backbone["stem"]["conv1"] = nn.Conv3d(3, 64, (frames, 7, 7), bias=False)
        self.classifier = nn.Linear(512, 1000)


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture
def file(resnet, tmp_path):
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    return str(tmp_path / "resnet18.pth")


def test_a_classifier_is_filled_whole_and_gives_the_same_scores(resnet, file):
    model = Classifier().eval()
    reader = Checkpointer(model)
    reader.load_whole(file)
    assert reader.unfilled == ()
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(model(image), resnet(image), rtol=1e-4, atol=1e-4)


def test_one_of_other_classes_keeps_its_own_last_layer(file, caplog):
    model = Classifier(classes=10)
    before = model.classifier.weight.detach().clone()
    reader = Checkpointer(model)
    reader.load(file)
    assert set(reader.unfilled) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.classifier.weight, before)
    assert "(1000, 512) in the checkpoint but (10, 512) in the model" in caplog.text


def test_a_model_without_one_is_told_that_it_is_left_out(file, resnet, caplog):
    segmentor = build(SEGMENTOR | {"MODEL.RESNETS.STEM_TYPE": "basic", "MODEL.RESNETS.NORM": "BN"})
    with pytest.raises(UsageError, match="another shape"):  # it is narrow
        Checkpointer(segmentor).load(file)
    converted = convert(resnet.state_dict(), torchvision_source.SOURCE)
    assert converted.dropped == dict.fromkeys(["fc.weight", "fc.bias"], "ImageNet classifier")
    assert not any("classifier" in key for key in converted.state)


def test_convolutions_of_images_are_inflated(file, resnet, caplog):
    clips = Clips(frames=4)
    with caplog.at_level(logging.INFO):
        Checkpointer(clips).load(file)
    assert "1 convolutions of images inflated for clips" in caplog.text
    weight, image = clips.backbone["stem"]["conv1"].weight, torch.randn(1, 3, 20, 20)
    # The model divides pixels by 1, the file's by 58 and so on: its kernels are scaled.
    frame = image / torch.tensor(IMAGENET_RGB.std).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = nn.functional.conv2d(frame, resnet.conv1.weight)
        still = nn.functional.conv3d(image[:, :, None].expand(-1, -1, 4, -1, -1), weight)
    torch.testing.assert_close(still[:, :, 0], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(clips.classifier.weight, resnet.fc.weight)


@pytest.fixture
def registered():
    source = Source(
        name="mine",
        title="a network of mine",
        signature=("my.stem",),
        rules=lambda state: [
            Rule("my.stem", "backbone.stem.conv1.weight"),
            Rule("my.{p:weight|bias}", "classifier.{p:weight|bias}"),
        ],
    )
    register_source(source)
    yield source
    SOURCES.remove(source)


def test_a_source_of_ones_own_is_read(registered, tmp_path):
    state = {"my.stem": torch.randn(64, 3, 7, 7), "my.weight": torch.randn(1000, 512)}
    assert detect_source(state) is registered is get_source("mine")
    torch.save(state, tmp_path / "mine.pth")
    model = Classifier()
    Checkpointer(model).load(str(tmp_path / "mine.pth"))
    assert torch.equal(model.backbone.stem.conv1.weight, state["my.stem"])
    assert torch.equal(model.classifier.weight, state["my.weight"])
    with pytest.raises(UsageError, match="there is a source 'mine' already"):
        register_source(registered)
