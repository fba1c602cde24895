"""Every registered block against its loop-written oracle (tests/reference)."""

import numpy as np
import pytest
import torch

from dnl_d2.layers import CONTEXT_BLOCKS
from tests.layers.cases import (
    CASES,
    SHAPES,
    TRAIN_SHAPES,
    Case,
    random_mask,
    registered,
    with_norm,
)
from tests.reference import ORACLES


def check(case: Case, block, inputs, mask=None) -> None:
    expected = case.oracle(block, inputs, mask)
    out = block(**inputs, key_padding_mask=mask)
    assert out.shape == inputs["x"].shape
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out, torch.from_numpy(expected.output), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", list(CONTEXT_BLOCKS))
def test_block_has_an_oracle_and_cases(name):
    assert name in ORACLES, f"block {name!r} is registered: write its oracle in tests/reference"
    assert CASES.get(name), f"block {name!r} is registered: list its options in CASES"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", registered())
def test_equals_oracle(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    check(case, block, inputs)
    check(case, block, inputs, random_mask(inputs, full_sample=False))
    check(case, block, inputs, random_mask(inputs, full_sample=True))


@pytest.mark.parametrize("case", with_norm())
def test_equals_oracle_with_batch_statistics(case):
    for shape in TRAIN_SHAPES:
        if case.name == "snl" and shape[0] == 1:
            continue  # its norm sees one position per sample: no batch statistics
        block, inputs = case.random().train(), case.inputs(shape)
        check(case, block, inputs)
        check(case, block, inputs, random_mask(inputs, full_sample=False))


@pytest.mark.parametrize("name", ["apnb", "afnb"])
def test_default_pyramid_of_110_cells(name):
    case = Case(name)
    block, inputs = case.random(), case.inputs((2, 6, 9, 11))
    check(case, block, inputs)
    mask = torch.zeros(2, *inputs.get("low", inputs["x"]).shape[2:], dtype=torch.bool)
    mask[0, 7:], mask[1, :, 5:] = True, True
    check(case, block, inputs, mask)


def test_afnb_without_a_shallow_map_attends_to_the_deep_one():
    case = Case("afnb", {"pool_scales": (1, 3)})
    block, inputs = case.random(), {"x": case.inputs((2, 6, 5, 4))["x"]}
    check(case, block, inputs)
    torch.testing.assert_close(block(inputs["x"]), block(inputs["x"], low=inputs["x"]))


@pytest.mark.parametrize(
    ("preset", "inter", "temperature"),
    [("mmseg", 4, 0.05), ("paper-seg", 4, 1.0), ("paper-det", 2, 0.05), ("paddleseg", 4, 0.05)],
)
def test_dnl_preset_defaults(preset, inter, temperature):
    block = Case("dnl", {"preset": preset}).random(channels=8)
    explicit = Case("dnl", {"preset": preset, "inter_channels": inter, "temperature": temperature})
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8, 4, 3)))
    torch.testing.assert_close(block(x), explicit.random(channels=8)(x), rtol=0, atol=0)


def test_gc_bottleneck_of_detection():
    """r16: two bottleneck channels of 32 (over a single one, layer norm would be a constant)."""
    case = Case("gc")
    block, inputs = case.random(channels=32), case.inputs((2, 32, 3, 4))
    assert block.channel_add[0].out_channels == 2
    check(case, block, inputs)
