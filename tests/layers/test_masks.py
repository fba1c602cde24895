"""What a key-padding mask promises: padding has no influence on valid positions."""

import pytest
import torch

from dnl_d2.errors import UsageError
from tests.layers.cases import (
    CHANNELS,
    FEW_SHAPES,
    Case,
    key_map,
    one_each,
    random_mask,
    registered,
    without_grid,
    without_group_norm,
)

PADDED = {1: (9,), 2: (6, 7), 3: (4, 4, 5)}
VALID = {
    1: (slice(0, 6),),
    2: (slice(0, 4), slice(0, 6)),
    3: (slice(0, 3), slice(0, 4), slice(0, 2)),
}


def refill(inputs, mask, value):
    """The same inputs with other contents at padded positions (of ``low`` where there is one)."""
    name = "low" if "low" in inputs else "x"
    changed = torch.where(mask[:, None], torch.as_tensor(value, dtype=torch.float64), inputs[name])
    return {**inputs, name: changed}


def valid_outputs(case, out, mask):
    """Of afnb, every output: its mask belongs to the shallow map."""
    return out if case.name == "afnb" else out.movedim(1, -1)[~mask]


@pytest.mark.parametrize("shape", FEW_SHAPES, ids=str)
@pytest.mark.parametrize("case", without_group_norm(registered()))
def test_contents_of_padding_do_not_matter(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    mask = random_mask(inputs, full_sample=False)
    expected = valid_outputs(case, block(**inputs, key_padding_mask=mask), mask)
    for value in (0.0, -3.0, 1e30):
        out = block(**refill(inputs, mask, value), key_padding_mask=mask)
        torch.testing.assert_close(valid_outputs(case, out, mask), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", without_group_norm(registered()))
def test_padding_gets_no_gradient_from_valid_outputs(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    mask = random_mask(inputs, full_sample=False)
    leaf = key_map(inputs).requires_grad_()
    out = valid_outputs(case, block(**inputs, key_padding_mask=mask), mask)
    (gradient,) = torch.autograd.grad(out.sin().sum(), leaf)
    at_positions = gradient.movedim(1, -1)
    assert (at_positions[mask] == 0).all()
    assert (at_positions[~mask].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("case", without_group_norm(without_grid(one_cell=True)))
def test_padded_map_gives_what_the_map_alone_gives(case, rank):
    """With even valid extents (2x pools then meet no border) and one cell per pyramid.

    The cells of a finer pyramid divide the padded extent, so there the claim would be false.
    """
    block, inputs = case.random(), case.inputs((2, CHANNELS, *PADDED[rank]))
    window = (slice(None), slice(None), *VALID[rank])
    padded = key_map(inputs)
    mask = torch.ones(2, *padded.shape[2:], dtype=torch.bool)
    mask[(slice(None), *VALID[rank])] = False
    out = block(**inputs, key_padding_mask=mask)
    if case.name == "afnb":
        alone = block(inputs["x"], low=padded[window])
    else:
        out, alone = out[window], block(padded[window])
    torch.testing.assert_close(out, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", registered())
def test_mask_without_padding_changes_nothing(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    mask = torch.zeros(2, *key_map(inputs).shape[2:], dtype=torch.bool)
    out = block(**inputs, key_padding_mask=mask)
    torch.testing.assert_close(out, block(**inputs), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", registered())
def test_fully_masked_sample_is_finite_and_leaves_the_others_alone(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    mask = random_mask(inputs, full_sample=False)
    expected = block(**inputs, key_padding_mask=mask)[0]
    mask[1] = True
    for tensor in inputs.values():
        tensor.requires_grad_()
    out = block(**inputs, key_padding_mask=mask)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], expected, rtol=1e-12, atol=1e-13)
    leaves = [*inputs.values(), *block.parameters()]
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("case", one_each())
def test_wrong_masks_are_refused(case: Case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    size = (2, *key_map(inputs).shape[2:])
    right = torch.zeros(size, dtype=torch.bool)
    for mask in (right.float(), right[:1], right[..., :-1], right[:, None]):
        with pytest.raises(UsageError, match="key_padding_mask must be a boolean") as error:
            block(**inputs, key_padding_mask=mask)
        assert "\n" not in str(error.value)
        with pytest.raises(UsageError, match="key_padding_mask must be a boolean"):
            block.attention(**inputs, key_padding_mask=mask)
