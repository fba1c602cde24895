"""How many kernels a block launches beside the public one."""

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
# Forward and backward of ours: not more than these, which PyTorch 2.14 takes.
MOST = {
    ("apnb", "fp32"): (21, 33), ("apnb", "bf16, fp32 map"): (29, 41), ("apnb", "bf16"): (28, 40),
    ("gc", "fp32"): (8, 11), ("gc", "bf16, fp32 map"): (8, 11), ("gc", "bf16"): (14, 17),
}  # fmt: skip


@pytest.mark.parametrize(("block", "way"), MOST)
def test_not_more_launches_than_the_public_block(block, way):
    autocast, dtype = WAYS[way]
    options = {"autocast": autocast, "dtype": dtype}
    ours = count_launches(block, "ours", SETTINGS, **options)
    theirs = count_launches(block, "reference", SETTINGS, **options)
    assert sum(ours) <= sum(theirs) and ours[0] <= theirs[0], (ours, theirs)
    assert ours[0] <= MOST[block, way][0] and ours[1] <= MOST[block, way][1], ours


def test_views_are_free_and_products_are_not():
    x = torch.ones(3, 4)
    with LaunchCounter() as counter:
        (x.t()[None].expand(2, -1, -1) @ x).relu_()
        x.reshape(2, 6).detach()
    assert counter.operators == {"bmm": 1, "relu_": 1}
