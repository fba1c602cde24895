"""What every block promises beside its equation: gradients, purity, identity, ranks, state."""

import copy

import pytest
import torch
from torch.func import functional_call

from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS
from tests.layers.cases import (
    CHANNELS,
    SHAPES,
    Case,
    batch_norms,
    one_each,
    random_map,
    random_mask,
    registered,
    with_norm,
    without_grid,
)

GRADIENT_CASES = [
    Case("nl", {"mode": "gaussian", "sub_sample": True}),
    Case("nl", {"norm": "BN"}),
    Case("nl", {"mode": "dot_product"}),
    Case("nl", {"mode": "concatenation", "sub_sample": True}),
    Case("snl", {"norm": "BN"}),
    Case("gc", {"ratio": 0.5, "fusion": ("add", "mul")}),
    Case("gc", {"ratio": 0.5, "pooling": "avg"}),
    Case("dnl", {"temperature": 0.5}),
    Case("dnl", {"preset": "paper-seg", "project": True}),
    Case("dnl", {"preset": "paper-det", "temperature": 0.5, "norm": "BN"}),
    Case("dnl", {"whitening": "layer", "sub_sample": True, "temperature": 0.5}),
    Case("apnb", {"pool_scales": (1, 2)}),
    Case("afnb", {"pool_scales": (1, 2), "low_channels": 3}),
]

# Submodules and parameters are checkpoint keys: renaming one breaks what users have trained.
KEYS = {
    "nl": "query.weight query.bias key.weight key.bias value.weight value.bias project.weight "
    "project.bias",
    "snl": "unary.weight unary.bias value.weight value.bias",
    "gc": "unary.weight unary.bias channel_add.0.weight channel_add.0.bias channel_add.1.weight "
    "channel_add.1.bias channel_add.3.weight channel_add.3.bias",
    "dnl": "query.weight query.bias key.weight key.bias unary.weight unary.bias value.weight "
    "value.bias project.weight project.bias",
}


def test_gradients_are_checked_for_every_block():
    assert {case.name for case in GRADIENT_CASES} == set(CONTEXT_BLOCKS)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradcheck(case, masked):
    """Analytic against numeric gradients, of inputs and all parameters."""
    block, inputs = case.random(channels=4), case.inputs((2, 4, 2, 3))
    block.train()
    mask = random_mask(inputs, full_sample=False) if masked else None
    names, values = zip(*{**inputs, **dict(block.named_parameters())}.items(), strict=True)
    values = tuple(v.detach().clone().requires_grad_() for v in values)

    def call(*tensors):
        given = dict(zip(names, tensors, strict=True))
        maps = {name: given.pop(name) for name in inputs}
        return functional_call(block, given, (), {**maps, "key_padding_mask": mask})

    assert torch.autograd.gradcheck(call, values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "case", [*one_each(), *(Case(n, {"sub_sample": True}) for n in ("nl", "dnl"))]
)
def test_input_is_left_untouched(case, shape):
    block, inputs = case.random(), case.inputs(shape)
    mask = random_mask(inputs, full_sample=True)
    given = [*inputs.values(), mask]
    before, versions = [t.clone() for t in given], [t._version for t in given]
    for key_padding_mask in (None, mask):
        block(**inputs, key_padding_mask=key_padding_mask)
        block.attention(**inputs, key_padding_mask=key_padding_mask)
    assert [t._version for t in given] == versions
    for tensor, copy_ in zip(given, before, strict=True):
        torch.testing.assert_close(tensor, copy_, rtol=0, atol=0)


@pytest.mark.parametrize("case", one_each())
def test_any_memory_layout(case):
    """Slices, channels-last maps and stride-0 views of a larger tensor."""
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    others = {k: v for k, v in inputs.items() if k != "x"}
    wide = random_map((2, CHANNELS + 2, 11, 4), 3)
    views = [
        inputs["x"].contiguous(memory_format=torch.channels_last),
        wide[:, 1:-1, ::2][:, :, :5],
        inputs["x"].transpose(2, 3).contiguous().transpose(2, 3),
        inputs["x"][:1].expand(2, -1, -1, -1),
    ]
    for view in views:
        expected = block(view.clone().contiguous(), **others)
        torch.testing.assert_close(block(view, **others), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", registered())
def test_identity_at_init_is_exact_and_declared(case, training):
    block, inputs = case.build().train(training), case.inputs((2, CHANNELS, 5, 4))
    mask = random_mask(inputs, full_sample=True)
    for key_padding_mask in (None, mask):
        out = block(**inputs, key_padding_mask=key_padding_mask)
        assert torch.equal(out, inputs["x"]) is block.identity_at_init


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("nl"), True),
        (Case("nl", {"norm": "BN"}), True),
        (Case("nl", {"zero_init": False}), False),
        (Case("snl"), True),
        (Case("gc"), True),
        (Case("gc", {"fusion": ("mul",)}), False),
        (Case("dnl"), True),
        (Case("dnl", {"preset": "paper-seg"}), False),
        (Case("dnl", {"preset": "paper-seg", "unary": False}), True),
        (Case("dnl", {"preset": "paper-det"}), False),
        (Case("dnl", {"preset": "paddleseg", "norm": "BN"}), False),
        (Case("apnb"), False),
        (Case("afnb"), False),
    ],
    ids=str,
)
def test_which_blocks_are_identities_at_init(case, expected):
    assert case.build().identity_at_init is expected


@pytest.mark.parametrize("preset", ["paper-seg", "paper-det"])
def test_paper_presets_start_with_the_unary_term_alone(preset):
    block = Case("dnl", {"preset": preset}).build()
    x = random_map((2, CHANNELS, 5, 4), 0)
    added = block(x) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), rtol=1e-9, atol=1e-12)
    assert added.abs().max() > 1e-4


@pytest.mark.parametrize("name", ["apnb", "afnb"])
def test_asymmetric_blocks_start_without_context(name):
    """A zero output projection: what other positions hold does not matter yet."""
    block, inputs = Case(name).build().eval(), Case(name).inputs((1, CHANNELS, 5, 4))
    out = block(**inputs)
    changed = {k: v.clone() for k, v in inputs.items()}
    changed[next(reversed(changed))][..., -1] += 5.0
    torch.testing.assert_close(block(**changed)[..., :-1], out[..., :-1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", registered())
def test_deterministic_and_state_dict_round_trip(case):
    block, inputs = case.random(seed=1), case.inputs((2, CHANNELS, 5, 4))
    out = block(**inputs)
    assert torch.equal(block(**inputs), out)
    assert torch.equal(copy.deepcopy(block)(**inputs), out)
    other = case.random(seed=2)
    assert not torch.equal(other(**inputs), out)
    other.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(other(**inputs), out)


@pytest.mark.parametrize("case", registered())
def test_no_bias_before_a_norm(case):
    """It would be cancelled by the norm, and public checkpoints have none."""
    for name, conv in case.build().named_modules():
        if getattr(conv, "norm", None) is not None and isinstance(conv, torch.nn.Conv2d):
            assert conv.bias is None, name


@pytest.mark.parametrize("name", KEYS)
def test_state_dict_keys(name):
    assert set(Case(name).build().state_dict()) == set(KEYS[name].split())


@pytest.mark.parametrize("case", without_grid(one_cell=True))
def test_parameters_do_not_depend_on_the_rank(case):
    """Finer pyramids are out: on an axis of size 1 a level of s cells repeats each cell s times."""
    block, inputs = case.random(), case.inputs((2, CHANNELS, 9))
    mask = random_mask(inputs, full_sample=False)
    expected = block(**inputs, key_padding_mask=mask)
    for axes in ([-1], [2], [-1, -1], [2, 2], [2, -1]):
        maps, mapped = dict(inputs), mask
        for axis in axes:
            maps = {k: v.unsqueeze(axis) for k, v in maps.items()}
            mapped = mapped.unsqueeze(axis if axis == -1 else 1)
        if case.options.get("sub_sample") and axes == [-1, -1]:
            continue  # the first axis of a clip is time, which is not sub-sampled
        out = block(**maps, key_padding_mask=mapped)
        torch.testing.assert_close(out.flatten(2), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", without_grid())
def test_blocks_commute_with_a_permutation_of_positions(case):
    block, x = case.random(), case.inputs((2, CHANNELS, 5, 4))["x"].flatten(2)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x[..., order]), block(x)[..., order], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", with_norm())
def test_one_forward_updates_each_norm_once(case):
    block, inputs = case.build().train(), case.inputs((2, CHANNELS, 5, 4))
    block(**inputs)
    assert all(norm.num_batches_tracked == 1 for norm in batch_norms(block))


@pytest.mark.parametrize("case", one_each())
def test_wrong_inputs_are_refused(case):
    block, inputs = case.random(), case.inputs((2, CHANNELS, 5, 4))
    others = {k: v for k, v in inputs.items() if k != "x"}
    for shape, message in (
        ((2, CHANNELS), "with 1 to 3 axes S"),
        ((2, CHANNELS, 1, 2, 3, 4), "with 1 to 3 axes S"),
        ((2, CHANNELS + 1, 5, 4), "was built for 6 channels, got 7"),
        ((2, CHANNELS, 0, 4), r"a map of size \(0, 4\) has no positions"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            block(random_map(shape, 0), **others)
        assert "\n" not in str(error.value)


def test_afnb_refuses_a_wrong_shallow_map():
    block = Case("afnb", {"low_channels": 4}).random()
    x = random_map((2, CHANNELS, 5, 4), 0)
    for shape in ((2, 3, 5, 4), (1, 4, 5, 4), (2, 4, 20)):
        with pytest.raises(UsageError, match="shallow map"):
            block(x, low=random_map(shape, 0))
    with pytest.raises(UsageError, match="shallow map"):
        block(x)
