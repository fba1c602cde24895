"""Files of the authors' segmentation repositories: told from others, odd ones refused."""

import pytest
import torch

from dnl_d2.checkpoint.convert import convert
from dnl_d2.checkpoint.keymap import strip_prefix
from dnl_d2.checkpoint.sources import ann, dnl_seg, mmseg, torchcv
from dnl_d2.errors import UsageError
from tests.checkpoint.models import assert_equal
from tests.checkpoint.test_authors_segmentation import (
    NETWORKS,
    PLAIN,
    authors_network,
    config_dict,
    our_network,
    published,
    randomized,
    source_of,
)


def test_conversion_changes_nothing_it_is_given():
    state = strip_prefix(published(randomized(authors_network("ann"))), "module.")
    before = {k: v.clone() for k, v in state.items()}
    convert(state, ann.SOURCE)
    assert list(state) == list(before)
    assert_equal(state, before)


def test_bias_whose_norm_is_missing_is_refused():
    state = published(authors_network("ann"))
    del state["module.dsn.1.0.running_mean"]
    with pytest.raises(UsageError, match="bias but not the mean of the norm") as error:
        convert(state, ann.SOURCE)
    assert "\n" not in str(error.value)


def test_copies_that_differ_are_refused():
    state = published(authors_network("ann"))
    state["module.context.2.stages.0.f_query.0.weight"] += 1.0
    with pytest.raises(UsageError, match="are one parameter"):
        convert(state, ann.SOURCE)


def imagenet():
    """The ResNet that both train from: without its stem in a module, with a classifier."""
    state = authors_network("fcn").backbone.state_dict()
    state = {k.removeprefix("prefix."): v for k, v in state.items()}
    return {**state, "fc.weight": torch.zeros(10, 256), "fc.bias": torch.zeros(10)}


def torchvision():
    state = imagenet()
    deep = ("conv2.", "conv3.", "bn2.", "bn3.")
    return {k: v for k, v in state.items() if not k.startswith(deep)}


def mmsegmentation():
    keys = [
        "backbone.stem.0.weight",
        "backbone.layer1.0.conv1.weight",
        "decode_head.conv_seg.weight",
    ]
    return dict.fromkeys(keys, torch.zeros(1))


FILES = [
    *((name, source_of(name).name) for name in NETWORKS),
    (mmsegmentation, "mmseg"),
    (imagenet, "torchcv"),
    (torchvision, None),
]


@pytest.mark.parametrize(("file", "expected"), FILES)
@pytest.mark.parametrize("stem", ["prefix", "resinit"])
def test_the_keys_alone_tell_the_source(file, expected, stem):
    is_network = isinstance(file, str)
    state = authors_network(file, stem=stem).state_dict() if is_network else file()
    sources = (dnl_seg.SOURCE, ann.SOURCE, mmseg.SOURCE, torchcv.SOURCE)
    found = [source.name for source in sources if source.recognises(state)]
    assert found == ([] if expected is None else [expected])


def test_imagenet_file_is_a_backbone():
    converted = convert(imagenet(), torchcv.SOURCE)
    assert converted.unexpected == []
    assert set(converted.dropped) == {"fc.weight", "fc.bias"}
    backbone = our_network("fcn")["backbone"]
    backbone.load_state_dict(strip_prefix(converted.state, "backbone."), strict=True)


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        ("nonlocalbn", {"whiten_type": ["bn"]}, "whiten_type"),
        ("nonlocalbn", {"whiten_type": ["channel", "ln_nostd"]}, "whiten_type"),
        ("nonlocalnowd", {"whiten_type": ["ln"], "nowd": []}, "whiten_type"),
        ("nonlocalbn", {"with_unary": True}, "pairwise term"),
        ("nonlocalnowd", {"with_nl": False}, "pairwise term"),
        ("pspnet", {}, "network 'pspnet'"),
    ],
)
def test_blocks_that_are_not_here_are_named(network, change, message):
    config = {"network": {"model_name": network}, "nonlocal": {**PLAIN, "temp": 1.0, **change}}
    with pytest.raises(UsageError, match=message) as error:
        dnl_seg.context_block(config)
    assert "\n" not in str(error.value)


def test_blocks_of_the_configs():
    temp_in, ln = (dnl_seg.context_block(config_dict(n)) for n in ("temp_in", "nowd_ln"))
    assert (temp_in["temperature"], temp_in["use_scale"]) == (0.05, True)
    assert temp_in["whitening"] == "channel"
    assert (ln["temperature"], ln["use_scale"], ln["whitening"]) == (1.0, False, "layer")
    # The code of the network without weight decay knows no "channel", so it does not whiten.
    assert dnl_seg.context_block(config_dict("nowd_in"))["whitening"] == "none"
    ade20k = config_dict("ade20k_temp_in")
    ade20k["nonlocal"] = {**ade20k["nonlocal"], "whiten_type": ["in_nostd"]}
    assert dnl_seg.context_block(ade20k)["whitening"] == "none"
    assert dnl_seg.context_block(config_dict("gc")) == {"name": "gc", "ratio": 0.25}
    assert dnl_seg.context_block(config_dict("fcn")) is None
