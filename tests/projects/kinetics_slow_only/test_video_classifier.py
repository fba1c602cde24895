"""Losses, and scores of many views."""

import pytest
import torch

from dnl_d2.analysis import analyze
from dnl_d2.errors import UsageError
from dnl_d2_kinetics import SlowOnlyResNet, VideoClassifier


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = SlowOnlyResNet(depth=18, stem_out_channels=8, res2_out_channels=8, norm="BN")
    return VideoClassifier(backbone=backbone, num_classes=5, dropout=0.0, views_per_pass=2)


def video(views, label=0):
    clips = torch.randint(0, 256, (views, 3, 2, 32, 32), dtype=torch.uint8)
    return {"clips": clips, "category_id": label, "file_name": "a.mp4"}


def test_scores_are_the_mean_over_views_whatever_goes_through_at_once(model):
    model.eval()
    torch.nn.init.normal_(model.classifier.weight)
    inputs = [video(5), video(1)]
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.no_grad():
        scores = [output["scores"] for output in model(inputs)]
        assert sizes == [2, 2, 1, 1]
        pixels = (inputs[0]["clips"] - model.pixel_mean) / model.pixel_std
        logits = model.classifier(model.backbone(pixels).mean((2, 3, 4)))
    torch.testing.assert_close(scores[0], logits.softmax(1).mean(0), rtol=1e-5, atol=1e-6)
    assert scores[1].sum() == pytest.approx(1)


def test_a_video_without_views_has_no_favourite(model):
    (found,) = model.eval()([video(0)])
    assert torch.equal(found["scores"], torch.zeros(5))


def test_loss_is_that_of_the_labels(model):
    inputs = [video(1, 3), video(1, 0)]
    loss = model(inputs)["loss_classification"]
    assert loss.item() == pytest.approx(torch.tensor(5.0).log().item(), abs=0.5)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    torch.nn.init.zeros_(model.classifier.weight)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([0.0, 0, 0, 9, 0]))
    assert model([video(1, 3), video(1, 3)])["loss_classification"] < 0.01
    assert model([video(1, 1), video(1, 1)])["loss_classification"] > 8


def test_a_class_beyond_the_classes_is_named(model):
    with pytest.raises(UsageError, match=r"a.mp4 has class 5, and model.num_classes is 5"):
        model([video(1, 5)])


def test_the_analysis_needs_the_number_of_frames(model):
    with pytest.raises(UsageError, match="--frames"):
        analyze(model, (32, 32))


def test_one_class_is_none():
    with pytest.raises(UsageError, match=r"model.num_classes 1"):
        VideoClassifier(backbone=SlowOnlyResNet(depth=18), num_classes=1)
