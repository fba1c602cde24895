"""Public slow-only files fill the model whole, each parameter from its own counterpart."""

import pytest
import torch

from dnl_d2.checkpoint import Checkpointer, convert_back, detect_source, get_source
from dnl_d2_kinetics import SlowOnlyResNet, VideoClassifier

NUMBERS = "weight", "bias", "running_mean", "running_var", "num_batches_tracked"


def build(context=None):
    inserts = {"res3": [0, 2], "res4": [0, 2, 4]} if context else {}
    backbone = SlowOnlyResNet(
        depth=50, stem_out_channels=8, res2_out_channels=16, norm="BN", context=context,
        inserts=inserts,
    )  # fmt: skip
    return VideoClassifier(backbone=backbone, num_classes=7)


def public(model, stem, block, convolutions, shortcut, classifier):
    """A state dict of random values with public names, written out parameter by parameter.

    Args:
        stem, classifier: names; of a convolution with its norm here and below.
        block: function of the stage's number from 1 and the block's.
        convolutions: names inside a block, with what the norm is called.
        shortcut: likewise.
    """
    state, ours = {}, model.state_dict()

    def put(conv, norm, own):
        state[f"{conv}.weight"] = torch.randn_like(ours[f"{own}.weight"])
        for number in NUMBERS:
            like = ours[f"{own}.norm.{number}"]
            state[f"{norm}.{number}"] = torch.rand(like.shape).to(like.dtype)

    put(*stem, "backbone.stem.conv1")
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for index in range(count):
            prefix, own = block(stage, index), f"backbone.res{stage + 1}.{index}"
            for number, (conv, norm) in enumerate(convolutions, start=1):
                put(f"{prefix}.{conv}", f"{prefix}.{norm}", f"{own}.conv{number}")
            if index == 0:
                put(*(f"{prefix}.{name}" for name in shortcut), f"{own}.shortcut")
    state[f"{classifier}.weight"] = torch.randn_like(ours["classifier.weight"])
    state[f"{classifier}.bias"] = torch.randn_like(ours["classifier.bias"])
    return state


def mmaction2(model):
    return public(
        model,
        stem=("backbone.conv1.conv", "backbone.conv1.bn"),
        block=lambda stage, index: f"backbone.layer{stage}.{index}",
        convolutions=[(f"conv{i}.conv", f"conv{i}.bn") for i in (1, 2, 3)],
        shortcut=("downsample.conv", "downsample.bn"),
        classifier="cls_head.fc_cls",
    )


def slowfast(model):
    return public(
        model,
        stem=("s1.pathway0_stem.conv", "s1.pathway0_stem.bn"),
        block=lambda stage, index: f"s{stage + 1}.pathway0_res{index}",
        convolutions=[(f"branch2.{x}", f"branch2.{x}_bn") for x in "abc"],
        shortcut=("branch1", "branch1_bn"),
        classifier="head.projection",
    )


def pytorchvideo(model):
    return public(
        model,
        stem=("blocks.0.conv", "blocks.0.norm"),
        block=lambda stage, index: f"blocks.{stage}.res_blocks.{index}",
        convolutions=[(f"branch2.conv_{x}", f"branch2.norm_{x}") for x in "abc"],
        shortcut=("branch1_conv", "branch1_norm"),
        classifier="blocks.5.proj",
    )


FILES = {
    "mmaction2-slowonly": (mmaction2, "state_dict"),
    "slowfast-slow": (slowfast, "model_state"),
    "pytorchvideo-slow": (pytorchvideo, "model_state"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_parameter_arrives(name, tmp_path, caplog):
    model = build()
    write, container = FILES[name]
    state = write(model)
    assert len(state) == len(model.state_dict()) and detect_source(state).name == name
    torch.save({container: state}, tmp_path / "public.pth")
    reader = Checkpointer(model)
    reader.load_whole(str(tmp_path / "public.pth"))
    assert reader.unfilled == ()
    for old, new in zip(state.values(), in_order(model, write), strict=True):
        assert torch.equal(old, new)
    fed = "pixel_mean" in caplog.text
    assert fed == (name != "mmaction2-slowonly")  # the others were fed otherwise
    back = convert_back(model.state_dict(), get_source(name))
    assert {key: value.shape for key, value in back.state.items()} == {
        key: value.shape for key, value in state.items()
    }


def in_order(model, write):
    """The model's own parameters, in the order in which ``write`` has those of a file."""

    def names(prefix):
        return [f"{prefix}.weight", *(f"{prefix}.norm.{number}" for number in NUMBERS)]

    order = names("backbone.stem.conv1")
    for stage, count in enumerate((3, 4, 6, 3), start=2):
        for index in range(count):
            parts = ["conv1", "conv2", "conv3", *(["shortcut"] if index == 0 else [])]
            order += [n for part in parts for n in names(f"backbone.res{stage}.{index}.{part}")]
    state = model.state_dict()
    return [state[name] for name in [*order, "classifier.weight", "classifier.bias"]]


@pytest.mark.parametrize("pooled", [True, False])
def test_mmaction2_non_local_blocks_arrive(pooled, tmp_path):
    model = build({"name": "nl", "sub_sample": pooled, "norm": "BN"})
    state = mmaction2(build())
    own = model.state_dict()
    names = {"theta": "query", "phi": "key", "g": "value", "conv_out": "project"}
    expected = {}
    for stage, index in ((2, 0), (2, 2), (3, 0), (3, 2), (3, 4)):
        block, ours = f"backbone.layer{stage}.{index}.non_local_block", f"backbone.res{stage + 1}"
        for public_name, mine in names.items():
            inner = f"{public_name}.0" if pooled and public_name in ("phi", "g") else public_name
            key = f"{ours}.{index}.context.{mine}"
            weight = torch.randn_like(own[f"{key}.weight"])
            expected[f"{key}.weight"] = weight
            state[f"{block}.{inner}.conv.weight"] = weight[..., None]  # a 1x1x1 kernel
            if public_name != "conv_out":
                state[f"{block}.{inner}.conv.bias"] = torch.randn_like(own[f"{key}.bias"])
        for number in NUMBERS:
            state[f"{block}.conv_out.bn.{number}"] = own[f"{key}.norm.{number}"]
    torch.save({"state_dict": state}, tmp_path / "nl.pth")
    reader = Checkpointer(model)
    reader.load_whole(str(tmp_path / "nl.pth"))
    assert reader.unfilled == ()
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], weight) for key, weight in expected.items())


def test_non_local_blocks_of_pyslowfast_are_left_out_and_said_so(tmp_path, caplog):
    model = build()
    state = slowfast(model) | {"s3.pathway0_nonlocal1.conv_theta.weight": torch.zeros(2, 2)}
    torch.save({"model_state": state}, tmp_path / "nl.pth")
    with caplog.at_level("INFO"):
        Checkpointer(model).load_whole(str(tmp_path / "nl.pth"))
    assert "1 left out (a non-local block unlike ours" in caplog.text
