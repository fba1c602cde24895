"""Segmentation heads inside detectron2's own SemanticSegmentor."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import SemanticSegmentor

from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block
from dnl_d2.modeling import AsymmetricHead, ContextHead, CrossEntropyLoss
from tests.modeling.configs import small_resnet

SHAPES = {"res4": ShapeSpec(channels=32, stride=8), "res5": ShapeSpec(channels=64, stride=8)}
CLASSES = 5


def context_head(**options):
    defaults = {"in_features": ["res5"], "channels": 16, "norm": "BN", "num_classes": CLASSES}
    return ContextHead(SHAPES, **(defaults | options))


def asymmetric_head(**options):
    defaults = {"channels": 16, "norm": "BN", "num_classes": CLASSES, "project_channels": 8}
    return AsymmetricHead(SHAPES, **(defaults | options))


def features(height=9, width=13, batch=2, **more):
    torch.manual_seed(1)
    return {
        name: torch.randn(batch, spec.channels, height, width) for name, spec in SHAPES.items()
    } | more


def segmentor(head):
    backbone = small_resnet(output_stride=8, out_features=["res4", "res5"])
    return SemanticSegmentor(
        backbone=backbone, sem_seg_head=head, pixel_mean=[120.0] * 3, pixel_std=[60.0] * 3
    )


HEADS = {"fcn": context_head, "ann": asymmetric_head}
HEADS |= {name: partial(context_head, context_block=name) for name in CONTEXT_BLOCKS}


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("size", [(65, 97), (64, 64)])
def test_segmentor_trains_and_predicts(build, size):
    torch.manual_seed(0)
    model = segmentor(build())
    batch = [
        {"image": torch.randint(0, 255, (3, *size)), "sem_seg": torch.randint(0, CLASSES, size)}
        for _ in range(2)
    ]
    batch[0]["sem_seg"][:5] = 255
    losses = model.train()(batch)
    assert list(losses) == ["loss_sem_seg"]
    losses["loss_sem_seg"].backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    assert not unused
    with torch.no_grad():
        (result, _) = model.eval()(batch)
    assert result["sem_seg"].shape == (CLASSES, *size)
    assert torch.isfinite(result["sem_seg"]).all()


def test_images_of_different_size_share_a_batch():
    model = segmentor(context_head(context_block="dnl")).eval()
    sizes = [(40, 64), (64, 33)]
    with torch.no_grad():
        results = model([{"image": torch.zeros(3, *s)} for s in sizes])
    assert [tuple(r["sem_seg"].shape[-2:]) for r in results] == sizes


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_resized_to_the_input_not_by_a_factor(align_corners):
    """769 is no multiple of 8: 97 * 8 = 776 would shift every pixel."""
    head = context_head(align_corners=align_corners).eval()
    maps = features(97, 5, batch=1)
    with torch.no_grad():
        got, losses = head(maps | {"input": torch.zeros(1, 3, 769, 33)})
        raw = head.layers(maps)
    assert losses == {}
    expected = F.interpolate(raw, (769, 33), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        assert head(maps)[0].shape[-2:] == (776, 40)  # other backbones: by stride


def test_logits_resized_from_whole_cells():
    """PaddleSeg's DNLNet: pixel i of n comes from i * cells / n; beyond the last cell, from it."""
    head = context_head(half_pixel_centers=False).eval()
    maps = features(5, 3, batch=1)
    with torch.no_grad():
        got, _ = head(maps | {"input": torch.zeros(1, 3, 33, 24)})
        raw = head.layers(maps)
    for i, j in [(0, 0), (1, 5), (20, 7), (32, 23)]:
        y, x = i * 5 / 33, j * 3 / 24
        expected = torch.zeros(CLASSES)
        for row, along in ((int(y), 1 - y % 1), (min(int(y) + 1, 4), y % 1)):
            for column, across in ((int(x), 1 - x % 1), (min(int(x) + 1, 2), x % 1)):
                expected += along * across * raw[0, :, row, column]
        torch.testing.assert_close(got[0, :, i, j], expected)


def test_structure_of_the_context_head_by_hand():
    torch.manual_seed(0)
    head = context_head(context_block={"name": "gc", "zero_init": False}).eval()
    maps = features()
    x = maps["res5"]
    with torch.no_grad():
        out = head.context_block(head.convs[0](x))
        out = head.fuse(torch.cat([x, head.convs[1](out)], 1))
        torch.testing.assert_close(head.layers(maps), head.predictor(out))
    assert (out >= 0).all()


def test_structure_of_the_asymmetric_head_by_hand():
    torch.manual_seed(0)
    head = asymmetric_head().eval()
    maps = features()
    with torch.no_grad():
        fused = head.fusion(maps["res5"], low=maps["res4"])
        out = head.context(head.bottleneck(fused))
        torch.testing.assert_close(head.layers(maps), head.predictor(out))


@pytest.mark.parametrize("average", ["valid", "all"])
def test_loss_against_a_loop(average):
    torch.manual_seed(0)
    logits = torch.randn(2, CLASSES, 4, 3, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (2, 4, 3))
    targets[0, 1] = 255
    total, count = 0.0, 0
    for n, i, j in np.ndindex(targets.shape):
        if targets[n, i, j] != 255:
            scores = logits[n, :, i, j]
            total += (scores.exp().sum().log() - scores[targets[n, i, j]]).item()
            count += 1
    expected = total / (count if average == "valid" else targets.numel())
    loss = CrossEntropyLoss(average=average)(logits, targets)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_loss_is_resized_in_fp32_under_autocast():
    head = context_head().train()
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = head(features(), torch.randint(0, CLASSES, (2, 72, 104)))
    assert losses["loss_sem_seg"].dtype == torch.float32


def auxiliary_head():
    return context_head(
        in_features=["res4"], num_convs=1, concat_input=False, loss_weight=0.4, dropout=0.0
    )


def test_auxiliary_loss_is_added_in_training():
    head = context_head(auxiliary=auxiliary_head(), dropout=0.0)
    maps, targets = features(), torch.randint(0, CLASSES, (2, 72, 104))
    _, losses = head.train()(maps, targets)
    assert list(losses) == ["loss_sem_seg", "loss_sem_seg_auxiliary"]
    logits = F.interpolate(head.auxiliary.layers(maps), (72, 104), mode="bilinear")
    torch.testing.assert_close(
        losses["loss_sem_seg_auxiliary"], 0.4 * F.cross_entropy(logits, targets)
    )


def test_auxiliary_head_does_not_run_in_inference():
    head = context_head(auxiliary=auxiliary_head()).eval()
    calls = []
    for conv in [*head.convs, *head.auxiliary.convs]:
        conv.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad():
        head(features())
    assert calls == list(head.convs)


def test_finished_block_is_accepted_and_checked():
    head = context_head(context_block=build_context_block("snl", 16))
    assert type(head.context_block).__name__ == "SimplifiedNonLocalBlock"
    with pytest.raises(UsageError, match="16 channels"):
        context_head(channels=32, context_block=build_context_block("snl", 16))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: context_head(in_features=["res3"]), "does not return 'res3'"),
        (lambda: context_head(in_features=["res4", "res5"]), "reads one feature"),
        (lambda: context_head(num_convs=0), "num_convs"),
        (lambda: context_head(align_corners=True, half_pixel_centers=False), "no meaning"),
        (lambda: asymmetric_head(in_features=["res5"]), "shallow and a deep"),
        (lambda: CrossEntropyLoss(average="mean"), "average 'mean'"),
    ],
)
def test_bad_options_are_one_clear_line(build, message):
    with pytest.raises(UsageError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_misspelt_option_is_no_option():
    with pytest.raises(TypeError, match="num_clases"):
        context_head(num_clases=3)


@pytest.mark.parametrize("head", [context_head, asymmetric_head])
def test_a_single_class_is_refused(head):
    with pytest.raises(UsageError, match=r"NUM_CLASSES\) is 1: .*predict 2 classes"):
        head(num_classes=1)
