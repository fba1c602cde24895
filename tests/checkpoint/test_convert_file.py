import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from dnl_d2.checkpoint import convert_back, get_source, read_weights
from dnl_d2.checkpoint.convert_file import convert_file
from dnl_d2.engine import load_config
from dnl_d2.errors import UsageError
from tests.checkpoint.models import DETECTOR, SEGMENTOR, assert_equal, build
from tests.tools.programs import run_file

TOOL = Path(__file__).parents[2] / "tools" / "convert_weights.py"
CONFIG_TEXT = """
dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
align_corners=True"""


@pytest.fixture(scope="module")
def model():
    return build(SEGMENTOR)


@pytest.fixture
def public(model, tmp_path):
    """The model in mmsegmentation's form, as a function of changes to its state dict."""

    def write(name="public.pth", **changes):
        state = dict(convert_back(model.state_dict(), get_source("mmseg")).state)
        for key, value in changes.items():
            if value is None:
                del state[key]
            else:
                state[key] = value
        meta = {"CLASSES": [f"class {i}" for i in range(19)], "config": CONFIG_TEXT}
        torch.save({"state_dict": state, "meta": meta}, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def convert_saved(tmp_path):
    """Saves a content as in.pth and converts that to out.pth; returns the report."""

    def convert(content, **options):
        torch.save(content, tmp_path / "in.pth")
        return convert_file(str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), **options)

    return convert


def only_inputs(folder, *names):
    assert sorted(os.listdir(folder)) == sorted(names)


def test_a_binary_model_of_mmsegmentation_is_refused(public, tmp_path):
    """It has one output, with a sigmoid, for two classes."""
    one = {"decode_head.conv_seg.weight": torch.ones(1, 32, 1, 1)}
    one["decode_head.conv_seg.bias"] = torch.ones(1)
    with pytest.raises(UsageError, match=r"public.pth: .*mmsegmentation's binary ones, are not"):
        convert_file(public(**one), str(tmp_path / "ours.pth"))
    only_inputs(tmp_path, "public.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_converted_file_holds_the_model(model, public, tmp_path, suffix):
    output = str(tmp_path / f"ours{suffix}")
    report = convert_file(public(), output)
    count = len(model.state_dict())
    assert f"matched    {count} of {count}" in report
    for line in (f"renamed    {count}", "dropped    0", "missing    0", "unexpected 0"):
        assert line in report
    assert "DNL head, 19 classes" in report
    weights = read_weights(output)
    assert_equal(weights.state, model.state_dict())
    assert weights.rest["classes"][18] == "class 18"
    assert weights.rest["input_format"]["channel_order"] == "RGB"


def test_the_written_config_builds_the_model(model, public, tmp_path):
    public_file, output, config = public(), str(tmp_path / "o.pth"), str(tmp_path / "o.yaml")
    convert_file(public_file, output, write_config=config)
    cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.SEM_SEG_HEAD.ALIGN_CORNERS is True
    assert cfg.INPUT.FORMAT == "RGB"
    build_model(cfg).load_state_dict(read_weights(output).state, strict=True)
    # and the other way about: the config as the model to check against
    report = convert_file(public_file, str(tmp_path / "again.pth"), config_file=config)
    assert "missing    0" in report


def test_there_and_back_is_bit_equal(public, tmp_path):
    source, ours, back = public(), str(tmp_path / "ours.pth"), str(tmp_path / "back.pth")
    convert_file(source, ours)
    convert_file(ours, back, to="mmseg")
    first, second = read_weights(source), read_weights(back)
    assert_equal(second.state, first.state)
    assert second.rest["meta"]["CLASSES"] == first.rest["meta"]["CLASSES"]


def test_pooling_shortcuts_come_and_go_back(convert_saved, tmp_path):
    model = build(SEGMENTOR, MODEL__RESNETS__SHORTCUT="avg_pool")
    names = convert_back(model.state_dict(), get_source("mmseg-v1d")).state
    assert "backbone.layer2.0.downsample.1.weight" in names
    ours, config, back = (str(tmp_path / name) for name in ("out.pth", "o.yaml", "back.pth"))
    for source in (None, "mmseg"):
        report = convert_saved({"state_dict": names}, source=source, write_config=config)
        assert "ResNet-V1d" in report and "unexpected 0" in report
    cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.RESNETS.SHORTCUT == "avg_pool"
    convert_file(ours, back, to="mmseg", config_file=config)
    assert read_weights(back).state.keys() == names.keys()


def test_odd_notes_beside_the_weights(public, convert_saved, tmp_path):
    content = torch.load(public())
    content["meta"] |= {"CLASSES": torch.ones(3), "PALETTE": torch.ones(3, 3)}
    convert_saved(content, to="mmseg")
    assert read_weights(tmp_path / "out.pth").rest["meta"] == {}
    state = read_weights(public()).state
    for note in ({"channel_order": "GRB"}, {"std": [0, 1, 1]}, {"mean": [1.0]}, {"std": None}):
        note = {"channel_order": "RGB", "mean": [1.0] * 3, "std": [1.0] * 3} | note
        with pytest.raises(UsageError, match=r"note on its input format is wrong \("):
            convert_saved({"state_dict": state, "input_format": note})


def test_what_mmseg_cannot_name_does_not_go_back(convert_saved, tmp_path):
    model = build(SEGMENTOR, MODEL__SEM_SEG_HEAD__CONTEXT__PRESET="paper-seg")
    with pytest.raises(UsageError, match=r"mmseg has no names for 6 parameters, such as .*gamma"):
        convert_saved({"model": model.state_dict()}, to="mmseg")
    only_inputs(tmp_path, "in.pth")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"decode_head.dnl_block.phi.conv.weight": None}, r"1 missing \(sem_seg_head.*key.weight"),
        ({"backbone.layer3.1.bn2.running_var": None}, r"1 missing \(backbone.res4.1.conv2.norm"),
        ({"decode_head.conv_seg.bias": torch.zeros(7)}, r"\[7\] in the file, \[19\] in the model"),
        ({"decode_head.psp_modules.0.w": torch.zeros(1)}, "1 that the model has no place for"),
    ],
)
def test_an_incomplete_file_leaves_nothing_behind(changes, message, public, tmp_path, capsys):
    source = public(**changes)
    with pytest.raises(UsageError, match=message) as error:
        convert_file(source, str(tmp_path / "out.pth"))
    assert str(error.value).startswith(source)
    assert "matched" in capsys.readouterr().out
    only_inputs(tmp_path, "public.pth")


def test_the_config_never_overwrites_weights(public, tmp_path):
    source = public()
    before = Path(source).read_bytes()
    for path in (source, str(tmp_path / "out.pth")):
        with pytest.raises(UsageError, match=r"ends in \.yaml"):
            convert_file(source, str(tmp_path / "out.pth"), write_config=path)
    with pytest.raises(UsageError, match="--opts are overrides"):
        convert_file(source, str(tmp_path / "out.pth"), opts=["A", "b"])
    assert Path(source).read_bytes() == before
    only_inputs(tmp_path, "public.pth")


@pytest.mark.parametrize("shape", [(), (0,), (19,), (19, 0, 1, 1)])
def test_a_weight_of_no_layer_is_named(shape, public, tmp_path):
    source = public(**{"decode_head.conv_seg.weight": torch.zeros(shape)})
    with pytest.raises(UsageError, match=r"predictor.weight' has the shape"):
        convert_file(source, str(tmp_path / "out.pth"))
    only_inputs(tmp_path, "public.pth")


def test_surplus_parameters_can_be_left_out(model, public, tmp_path):
    source = public(**{"decode_head.extra.weight": torch.zeros(1)})
    report = convert_file(source, str(tmp_path / "out.pth"), ignore_unexpected=True)
    assert "unexpected 1\n    decode_head.extra.weight" in report
    assert set(read_weights(tmp_path / "out.pth").state) == set(model.state_dict())


def test_a_file_without_auxiliary_head_is_whole(public, model, tmp_path):
    keys = convert_back(model.state_dict(), get_source("mmseg")).state
    gone = {key: None for key in keys if key.startswith("auxiliary_head.")}
    assert gone
    assert "missing    0" in convert_file(public(**gone), str(tmp_path / "out.pth"))


@pytest.mark.parametrize(
    "key, name",
    [
        ("decode_head.aspp_modules.0.conv.weight", "DeepLabV3"),
        ("backbone.stage2.0.branches.0.0.conv1.weight", "HRNet"),
        ("backbone.blocks.0.attn.qkv.weight", "Vision Transformer"),
        ("features.0.weight", "VGG"),
        ("something.weight", "no model known here"),
    ],
)
def test_other_architectures_are_named(key, name, convert_saved, tmp_path):
    with pytest.raises(UsageError, match=name):
        convert_saved({"state_dict": {key: torch.zeros(1)}})
    only_inputs(tmp_path, "in.pth")


def test_a_wrong_source_or_config_is_named(public, tmp_path):
    config = tmp_path / "other.yaml"
    convert_file(public(), str(tmp_path / "right.pth"), write_config=str(config))
    config.write_text(config.read_text().replace("DEPTH: 18", "DEPTH: 34"))
    with pytest.raises(UsageError, match=r"unknown source 'mmcls'; use one of .*mmseg"):
        convert_file(public(), str(tmp_path / "out.pth"), source="mmcls")
    with pytest.raises(UsageError, match=r"does not hold the model of .*other.yaml"):
        convert_file(public(), str(tmp_path / "out.pth"), config_file=str(config))
    only_inputs(tmp_path, "public.pth", "right.pth", "other.yaml")


def test_outputs_that_cannot_be(public, tmp_path):
    source = public()
    for output, message in [
        (tmp_path / "out.bin", r"ends in \.pth or \.safetensors"),
        (tmp_path / "gone" / "out.pth", "no folder"),
        (source, "overwrite the input"),
    ]:
        with pytest.raises(UsageError, match=message):
            convert_file(source, str(output))
    with pytest.raises(UsageError, match="no folder"):
        convert_file(
            source, str(tmp_path / "out.pth"), write_config=str(tmp_path / "gone" / "model.yaml")
        )
    only_inputs(tmp_path, "public.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_interrupted_write_keeps_the_old_file(suffix, public, tmp_path, monkeypatch):
    output = tmp_path / f"out{suffix}"
    output.write_bytes(b"old")

    def full_disk(*args, **kwargs):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    source = public()
    monkeypatch.setattr("torch.save", full_disk)
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(UsageError, match="no space left"):
        convert_file(source, str(output))
    assert output.read_bytes() == b"old"
    only_inputs(tmp_path, "public.pth", output.name)


@pytest.mark.parametrize("sizes, ratios", [([20, 32], [1.0]), ([20], [0.5, 1.0, 2.0])])
def test_a_detector_on_fewer_levels_converts(sizes, ratios, convert_saved, tmp_path):
    model = build(
        DETECTOR,
        MODEL__RESNETS__NORM="BN",
        MODEL__RESNETS__OUT_FEATURES=["res3", "res4", "res5"],
        MODEL__FPN__IN_FEATURES=["res3", "res4", "res5"],
        MODEL__FPN__NORM="BN",
        MODEL__RPN__IN_FEATURES=["p3"],
        MODEL__ANCHOR_GENERATOR__SIZES=[sizes],
        MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS=[ratios],
        MODEL__ROI_HEADS__IN_FEATURES=["p3"],
    )
    config = str(tmp_path / "out.yaml")
    report = convert_saved({"model": model.state_dict()}, write_config=config)
    assert "missing    0" in report and "Faster R-CNN, 3 classes" in report
    cfg = load_config(config, ["MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.FPN.IN_FEATURES == ["res3", "res4", "res5"]
    assert cfg.MODEL.RPN.IN_FEATURES == ["p3", "p4", "p5", "p6"]
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[0][0] == 64  # as published on p3
    built = build_model(cfg)
    built.load_state_dict(read_weights(tmp_path / "out.pth").state, strict=True)
    assert built.proposal_generator.anchor_generator.num_anchors[0] == len(sizes) * len(ratios)


def test_what_no_weight_shows_is_said(public, convert_saved, tmp_path):
    content, config = {"model": build(DETECTOR).state_dict()}, tmp_path / "out.yaml"
    report = convert_saved(content, write_config=str(config))
    assert "Faster R-CNN, 3 classes" in report and "missing    0" in report
    said = "input colours, anchors, levels and pooling cannot be told from the weights: set "
    keys = ("INPUT.FORMAT", "MODEL.PIXEL_STD", "MODEL.ANCHOR_GENERATOR", "BOX_HEAD.POOLER_TYPE")
    for text in (report, config.read_text()):
        (line,) = [line for line in text.splitlines() if said in line]
        assert all(key in line for key in keys)
    assert config.read_text().splitlines()[1].startswith(f"# {said}")
    assert "&id" not in config.read_text()
    assert "cannot be told" not in convert_saved(content)
    # The code base of this one is known, and with it all of that.
    report = convert_file(public(), str(tmp_path / "out.pth"), write_config=str(config))
    assert "cannot be told" not in report + config.read_text()


def test_a_segmentors_unseen_settings_are_said(model, convert_saved, tmp_path):
    content = {"model": model.state_dict()}
    report = convert_saved(content, write_config=str(tmp_path / "out.yaml"))
    assert "input colours, dilation and corners of the resize cannot be told" in report


def test_the_command_line(public, tmp_path):
    command = [sys.executable, str(TOOL), public(), str(tmp_path / "out.safetensors"), "--verbose"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "decode_head.conv_seg.weight -> sem_seg_head.predictor.weight" in done.stdout
    (tmp_path / "page.pth").write_text("<html>")
    said = run_file([str(TOOL), str(tmp_path / "page.pth"), str(tmp_path / "no.pth")])
    assert re.fullmatch(r"convert_weights.py: error: .*page.pth: .*HTML.*", said)
    assert not (tmp_path / "no.pth").exists()
