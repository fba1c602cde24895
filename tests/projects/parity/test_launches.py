"""How many kernels a block launches beside the public one."""

import dataclasses

import pytest
import torch

from dnl_d2_parity.benchmarks.block_cases import Settings
from dnl_d2_parity.benchmarks.launches import LaunchCounter, count_launches

SETTINGS = Settings(channels=64, inter_channels=32)
WAYS = {
    "fp32": (False, torch.float32),
    "bf16, fp32 map": (True, torch.float32),
    "bf16": (True, torch.bfloat16),
}
# Forward and backward of ours: not more than these, which PyTorch 2.14 takes. "fused" is what a GPU
# runs, where attention itself is one operator.
MOST = {
    ("nl", "fp32"): (9, 14), ("nl", "bf16, fp32 map"): (16, 22), ("nl", "bf16"): (15, 20),
    ("dnl", "fp32"): (15, 28), ("dnl", "bf16, fp32 map"): (23, 34), ("dnl", "bf16"): (22, 32),
    ("apnb", "fp32"): (17, 28), ("apnb", "bf16, fp32 map"): (25, 36), ("apnb", "bf16"): (24, 35),
    ("gc", "fp32"): (8, 17), ("gc", "bf16, fp32 map"): (8, 17), ("gc", "bf16"): (14, 23),
}  # fmt: skip
FUSED = {
    ("nl", "fp32"): (6, 9), ("nl", "bf16, fp32 map"): (13, 17), ("nl", "bf16"): (12, 15),
    ("dnl", "fp32"): (12, 23), ("dnl", "bf16, fp32 map"): (20, 29), ("dnl", "bf16"): (19, 27),
}  # fmt: skip


def _launches(block, way, side, backend="auto"):
    autocast, dtype = WAYS[way]
    settings = dataclasses.replace(SETTINGS, backend=backend)
    return count_launches(block, side, settings, autocast=autocast, dtype=dtype)


@pytest.mark.parametrize(("block", "way"), MOST)
def test_not_more_launches_than_the_public_block(block, way):
    ours, theirs = _launches(block, way, "ours"), _launches(block, way, "reference")
    assert ours[0] <= theirs[0] and ours[1] <= theirs[1], (ours, theirs)
    assert ours[0] <= MOST[block, way][0] and ours[1] <= MOST[block, way][1], ours


@pytest.mark.parametrize("way", WAYS)
def test_a_third_fewer_for_a_small_pyramid(way):
    ours, theirs = _launches("apnb", way, "ours"), _launches("apnb", way, "reference")
    assert 3 * sum(ours) <= 2 * sum(theirs), (ours, theirs)


@pytest.mark.parametrize(("block", "way"), FUSED)
def test_a_third_fewer_where_attention_is_one_kernel(block, way):
    ours, theirs = _launches(block, way, "ours", "fused"), _launches(block, way, "reference")
    assert 3 * sum(ours) <= 2 * sum(theirs), (ours, theirs)
    assert ours[0] <= FUSED[block, way][0] and ours[1] <= FUSED[block, way][1], ours


def test_views_are_free_and_products_are_not():
    x = torch.ones(3, 4)
    with LaunchCounter() as counter:
        (x.t()[None].expand(2, -1, -1) @ x).relu_()
        x.reshape(2, 6).detach()
    assert counter.operators == {"bmm": 1, "relu_": 1}


def test_each_gradient_of_a_convolution_counts():
    conv = torch.nn.Conv2d(3, 4, 1)
    out = conv(torch.ones(1, 3, 2, 2)).sum()
    with LaunchCounter() as counter:
        out.backward()
    assert counter.operators["convolution_backward"] == 2  # of the weight and of the bias
