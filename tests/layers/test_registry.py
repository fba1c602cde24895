"""Blocks by name, and what wrong names and arguments say."""

import inspect

import pytest
import torch

import dnl_d2.layers as layers
from dnl_d2.errors import UsageError
from dnl_d2.layers import (
    CONTEXT_BLOCKS,
    ContextBlock,
    DisentangledNonLocalBlock,
    DisentangledVariant,
    block_arguments,
    build_context_block,
)
from dnl_d2.layers.context_block import ContextBlockRegistry

CLASSES = {
    "nl": "NonLocalBlock",
    "snl": "SimplifiedNonLocalBlock",
    "gc": "GlobalContextBlock",
    "dnl": "DisentangledNonLocalBlock",
    "apnb": "AsymmetricPyramidNonLocalBlock",
    "afnb": "AsymmetricFusionNonLocalBlock",
}


@pytest.mark.parametrize("name", CLASSES)
def test_names(name):
    block = getattr(layers, CLASSES[name])
    for spelled in (name, name.upper(), CLASSES[name], CLASSES[name].lower()):
        assert CONTEXT_BLOCKS.get(spelled) is block
        assert spelled in CONTEXT_BLOCKS
    assert "resnet" not in CONTEXT_BLOCKS
    assert len(CONTEXT_BLOCKS) == len(list(CONTEXT_BLOCKS)) >= len(CLASSES)


@pytest.mark.parametrize("name", list(CONTEXT_BLOCKS))
def test_signature_of_the_contract(name):
    """in_channels first, the rest by keyword with defaults, nothing that swallows typos."""
    block = CONTEXT_BLOCKS.get(name)
    first, *others = inspect.signature(block).parameters.values()
    assert first.name == "in_channels" and first.kind is first.POSITIONAL_OR_KEYWORD
    for parameter in others:
        assert parameter.kind is parameter.KEYWORD_ONLY, parameter
        assert parameter.default is not parameter.empty, parameter
        assert parameter.annotation is not parameter.empty, parameter
    assert block_arguments(block) == [p.name for p in others]
    assert issubclass(block, ContextBlock) and block.__name__ in layers.__all__
    lines = block.__doc__ + (DisentangledVariant.__doc__ if name == "dnl" else "")
    assert all(f"{p.name}:" in lines for p in (first, *others)), "an argument lacks its line"


def test_build():
    assert build_context_block(None, 8) is None
    assert isinstance(build_context_block("dnl", 8), layers.DisentangledNonLocalBlock)
    spec = {"name": "dnl", "temperature": 0.1, "inter_channels": 4}
    block = build_context_block(spec, 8)
    assert spec == {"name": "dnl", "temperature": 0.1, "inter_channels": 4}
    assert block.scale == pytest.approx(4**-0.5 / 0.1)
    assert block.query.out_channels == 4 and block.in_channels == 8
    assert build_context_block(block, 8) is block


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dnll", "unknown context block 'dnll'; did you mean 'dnl'?"),
        ("resnet", "unknown context block 'resnet'; known: nl"),
        ({"name": ""}, "a context block needs a name; known: nl"),
        ({"temperature": 0.1}, "a context block needs a name"),
        (
            {"name": "dnl", "temprature": 0.1},
            "no argument 'temprature'; did you mean 'temperature'?",
        ),
        ({"name": "nl", "in_channels": 8}, "no argument 'in_channels'"),
        (
            {"name": "dnl", "preset": "paper"},
            "unknown DNL preset 'paper'; use one of mmseg, paper-seg",
        ),
        ({"name": "dnl", "temperature": 0}, "temperature must be a positive number, got 0"),
        ({"name": "dnl", "temperature": float("nan")}, "temperature must be a positive number"),
        (
            {"name": "dnl", "temperature": "0.05"},
            "temperature must be a positive number, got '0.05'",
        ),
        ({"name": "dnl", "project": False}, "project=False is for the paper presets"),
        ({"name": "dnl", "whitening": "bn"}, "unknown whitening 'bn'; use one of channel, layer"),
        ({"name": "nl", "mode": "cosine"}, "unknown pairwise mode 'cosine'; use one of gaussian"),
        ({"name": "nl", "reduction": 0}, "reduction must be a positive integer, got 0"),
        ({"name": "nl", "inter_channels": -1}, "inter_channels must be a positive integer"),
        ({"name": "gc", "ratio": 0.0}, "ratio must be a positive number"),
        ({"name": "gc", "pooling": "max"}, "unknown GC pooling 'max'"),
        ({"name": "gc", "fusion": ("add", "cat")}, "unknown GC fusion ['add', 'cat']"),
        ({"name": "gc", "fusion": ()}, "unknown GC fusion []"),
        ({"name": "gc", "fusion": ("add", "add")}, "unknown GC fusion"),
        ({"name": "apnb", "pool_scales": ()}, "pool_scales must list at least one"),
        (
            {"name": "apnb", "pool_scales": (1, 0)},
            "pool_scales[1] must be a positive integer, got 0",
        ),
        ({"name": "afnb", "low_channels": 0}, "low_channels must be a positive integer"),
        ({"name": "nl", "norm": "BNN"}, "norm 'BNN'"),
        ({"name": "nl", "norm": "GN"}, "do not divide 8 channels"),
        ({"name": "nl", "reduction": 2.5}, "reduction must be a positive integer, got 2.5"),
        ({"name": "dnl", "temperature": float("inf")}, "temperature must be a positive number"),
        ({"name": "apnb", "pool_scales": 3}, "pool_scales must list at least one"),
        ({"name": "gc", "fusion": None}, "unknown GC fusion"),
        (["dnl"], "a context block is a name or a mapping"),
    ],
    ids=str,
)
def test_wrong_specs_say_so_in_one_line(spec, message):
    with pytest.raises(UsageError) as error:
        build_context_block(spec, 8)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channels", [0, -8])
@pytest.mark.parametrize("name", list(CONTEXT_BLOCKS))
def test_wrong_channels(name, channels):
    with pytest.raises(UsageError, match="in_channels must be a positive"):
        build_context_block(name, channels)


def test_finished_block_for_other_channels():
    with pytest.raises(UsageError, match="NonLocalBlock is for 8 channels, but the map has 16"):
        build_context_block(layers.NonLocalBlock(8), 16)


def test_zero_init_needs_an_affine_norm():
    with pytest.raises(UsageError, match="needs an affine norm"):
        layers.NonLocalBlock(8, norm=lambda c: torch.nn.BatchNorm2d(c, affine=False))


def test_registering():
    registry = ContextBlockRegistry()

    @registry.register("Mine")
    class MyBlock(ContextBlock):
        pass

    assert list(registry) == ["mine"] and registry.get("myblock") is MyBlock
    for name in ("mine", "MYBLOCK"):
        with pytest.raises(UsageError, match="already registered"):
            registry.register(name)(type("Other", (ContextBlock,), {}))
    with pytest.raises(UsageError, match="already registered"):
        registry.register("other")(type("MyBlock", (ContextBlock,), {}))


def test_signature_of_dnl_shows_what_it_does():
    """``help``, config keys and overrides come from the signature."""
    arguments = inspect.signature(DisentangledNonLocalBlock).parameters
    assert arguments["temperature"].default == 0.05 and arguments["project"].default is True
    assert not {"gamma", "activation", "options"} & set(arguments)
    assert list(arguments)[1:] == block_arguments(DisentangledNonLocalBlock)
    with pytest.raises(UsageError, match="no argument 'temprature'; did you mean 'temperature'"):
        DisentangledNonLocalBlock(8, temprature=0.1)


def test_dnl_variants_of_your_own():
    variant = DisentangledVariant(reduction=3, gamma=True, temperature=2.0)
    block = DisentangledNonLocalBlock(8, preset=variant, temperature=0.5, use_scale=False)
    assert (block.inter_channels, block.scale) == (2, 2.0)
    assert block.gamma is not None and block.project is not None


def test_a_block_that_lacks_a_method_says_so():
    class Empty(ContextBlock):
        pass

    x = torch.zeros(1, 2, 3, 3)
    with pytest.raises(UsageError, match=r"Empty has no transform\(x, mask\)"):
        Empty(2)(x)
    with pytest.raises(UsageError, match="Empty has no attention_maps"):
        Empty(2).attention(x)
