"""Deformable convolutions in the residual blocks: values, names, precision, errors."""

import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from dnl_d2.errors import UsageError
from dnl_d2.modeling import build_context_resnet
from dnl_d2.modeling.backbone import ContextBottleneckBlock
from tests.modeling.configs import config

IMAGE = ShapeSpec(channels=3)


def sample(image, y, x):
    """Bilinear value of ``(C, H, W)`` at a point; zero outside."""
    total = torch.zeros_like(image[:, 0, 0])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                total = total + weight * image[:, row, column]
    return total


@pytest.mark.parametrize(("modulated", "groups"), [(False, 1), (True, 1), (False, 2)])
def test_deformable_convolution_samples_where_the_offsets_point(modulated, groups):
    torch.manual_seed(0)
    block = ContextBottleneckBlock(
        4, 4, bottleneck_channels=4, norm="", dilation=2, num_groups=2,
        deform=True, deform_modulated=modulated, deform_num_groups=groups,
    ).double()  # fmt: skip
    torch.nn.init.normal_(block.conv2_offset.weight, std=0.3)
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        found = block._deform(x, block.conv2_offset)[0]
        shifts = block.conv2_offset(x)[0]
    taps = 9 * groups
    masks = shifts[2 * taps :].sigmoid() if modulated else torch.ones(taps, 5, 6).double()
    expected = torch.zeros_like(found)
    for y, x_ in np.ndindex(5, 6):
        columns = torch.zeros(4, 9, dtype=torch.float64)
        for channel, tap in np.ndindex(4, 9):
            number = channel // (4 // groups) * 9 + tap
            dy, dx = shifts[2 * number : 2 * number + 2, y, x_].tolist()
            place = (y + 2 * (tap // 3 - 1) + dy, x_ + 2 * (tap % 3 - 1) + dx)
            value = sample(x[0, channel : channel + 1], *place)[0]
            columns[channel, tap] = value * masks[number, y, x_]
        for out in range(4):
            group = columns[2 * (out // 2) : 2 * (out // 2) + 2]
            expected[out, y, x_] = (block.conv2.weight[out].flatten(1) * group).sum()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_deformable_convolution_starts_as_the_plain_one():
    plain = build_context_resnet(depth=50, norm="FrozenBN")
    deformable = build_context_resnet(depth=50, norm="FrozenBN", deform_on=["res4", "res5"])
    absent = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not absent.unexpected_keys
    assert all(".conv2_offset." in key for key in absent.missing_keys)
    assert len(absent.missing_keys) == 2 * (6 + 3)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = (model(image)["res5"] for model in (deformable, plain))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_deformable_convolutions_by_yaml_have_detectron2s_names():
    options = {"DEFORM_ON_PER_STAGE": [False, True, True, True], "DEFORM_NUM_GROUPS": 2}
    # res5 is not built: its flag is for nobody, as in Detectron2.
    cfg = config(DEPTH=50, **options, DEFORM_MODULATED=True)
    with torch.device("meta"):
        ours = build_backbone(cfg, IMAGE).state_dict()
    assert not any("conv2_offset" in key for key in ours if key.startswith("res2"))
    # Twice 3 numbers for 9 taps; Detectron2's own block cannot be built uncompiled.
    assert ours["res3.0.conv2_offset.weight"].shape == (54, 128, 3, 3)
    assert {"res3.0.conv2.weight", "res3.0.conv2.norm.weight"} < ours.keys()


def test_deformable_convolution_in_bfloat16():
    model = build_context_resnet(
        depth=50, norm="FrozenBN", deform_on=["res3"], out_features=["res3"]
    )
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image)["res3"]
        with torch.autocast("cpu", torch.bfloat16):
            found = model(image)["res3"]
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_deformable_convolutions_are_refused_where_there_are_none():
    with pytest.raises(UsageError, match="deform_num_groups must be a positive integer, got 0"):
        build_context_resnet(depth=50, deform_on=["res5"], deform_num_groups=0)
    with pytest.raises(UsageError, match="deform_num_groups 3 does not divide the 64 channels"):
        build_context_resnet(depth=50, deform_on=["res5"], deform_num_groups=3)
    with pytest.raises(UsageError, match="a list of stages, got 'res5'"):
        build_context_resnet(depth=50, deform_on="res5")
    with pytest.raises(UsageError, match="True or False"):
        build_backbone(config(DEFORM_ON_PER_STAGE=["False"] * 4), IMAGE)
    with pytest.raises(UsageError, match="ResNet-18 has no deformable"):
        build_context_resnet(depth=18, deform_on=["res5"])
    with pytest.raises(UsageError, match="'res6' is none of the stages res2, res3, res4, res5"):
        build_context_resnet(depth=50, deform_on=["res6"])
    with pytest.raises(UsageError, match="four values"):
        build_backbone(config(DEFORM_ON_PER_STAGE=[True]), IMAGE)
