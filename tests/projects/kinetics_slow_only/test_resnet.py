"""The slow-only network: its size, its names, what it sees of time, what it refuses."""

import pytest
import torch
from detectron2.config import LazyConfig

from dnl_d2.analysis import analyze
from dnl_d2.checkpoint import Checkpointer
from dnl_d2.errors import UsageError
from dnl_d2.modeling import build_context_resnet
from dnl_d2.modeling.from_config import build_from_config
from dnl_d2_kinetics import SlowOnlyResNet, VideoClassifier

NARROW = dict(depth=18, stem_out_channels=8, res2_out_channels=8, norm="BN")
CONFIGS = "projects/kinetics_slow_only/configs"
# Parameters and GFLOPs at 8x224x224; the README says which digits differ from the published table.
SIZES = {
    "slow_only": (32.45, 41.74),
    "nl_slow_only": (39.81, 70.14),
    "snl_slow_only": (36.13, 41.77),
    "gc_slow_only": (34.30, 41.77),
    "gc_all_slow_only": (42.46, 41.80),
    "dnl_slow_only": (39.81, 63.98),
}


def totals(root, name, *overrides):
    path = str(root / CONFIGS / f"kinetics400/{name}_r50_8x8.py")
    analysis = analyze(build_from_config(path, list(overrides), device="meta"), (8, 224, 224))
    parameters = sum(sum(p) for p in analysis.parameters.values())
    return parameters / 1e6, sum(c.multiply_adds for c in analysis.operations.values()) / 1e9


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_operations_of_the_recipes(root, name):
    parameters, operations = totals(root, name)
    assert (round(parameters, 2), round(operations, 2)) == SIZES[name]


def test_every_config_builds(root):
    paths = sorted((root / CONFIGS).glob("[gk]*/*.py"))
    assert len(paths) == 14
    folders = set()
    for path in paths:
        build_from_config(str(path), [], device="meta")
        cfg = LazyConfig.load(str(path))
        assert cfg.train.output_dir.endswith(path.stem)
        folders.add(cfg.train.output_dir)
    assert len(folders) == len(paths)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_network_of_images_fills_it_and_sees_a_still_clip_alike(depth, tmp_path):
    torch.manual_seed(0)
    widths = dict(stem_out_channels=8, res2_out_channels=8 * (4 if depth == 50 else 1))
    images = build_context_resnet(
        depth=depth, stem="basic", norm="BN", out_features=["res5"], **widths,
        **(dict(num_groups=1, width_per_group=8) if depth == 50 else {}),
    )  # fmt: skip
    images.eval()
    state = {f"backbone.{name}": value for name, value in images.state_dict().items()}
    torch.save({"model": state}, tmp_path / "images.pth")
    clips = VideoClassifier(
        backbone=SlowOnlyResNet(depth=depth, norm="BN", temporal_kernels=(1, 1, 1, 3), **widths),
        num_classes=5,
    ).eval()
    reader = Checkpointer(clips)
    reader.load(str(tmp_path / "images.pth"))
    assert set(reader.unfilled) == {"classifier.weight", "classifier.bias"}
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = images(image)["res5"]
        # Inside, where no frame borders on the zeros before the first and behind the last.
        still = clips.backbone(image[:, :, None].expand(-1, -1, 9, -1, -1))[:, :, 4]
    torch.testing.assert_close(still, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [None, "nl", "snl", "gc", "dnl"])
def test_without_convolutions_along_time_the_order_is_unknown_whatever_the_block(block):
    torch.manual_seed(0)
    context = block and {"name": block, **({} if block == "dnl" else {"zero_init": False})}
    inserts = {"res3": [-1], "res4": [0, 1]} if block else {}
    clip = torch.randn(1, 3, 4, 32, 32)
    backward = clip[:, :, [3, 0, 2, 1]]
    differences = []
    for kernels in ((1, 1, 1, 1), (1, 1, 3, 3)):
        net = SlowOnlyResNet(temporal_kernels=kernels, context=context, inserts=inserts, **NARROW)
        for name, parameter in net.named_parameters():
            if "context" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        net = net.double().eval()
        with torch.no_grad():
            first, second = (net(x.double()).mean((2, 3, 4)) for x in (clip, backward))
        differences.append((first - second).abs().max() / first.abs().max())
    assert differences[0] < 1e-12 and differences[1] > 1e-3


def test_context_blocks_change_nothing_at_first_and_sit_where_told():
    torch.manual_seed(0)
    plain = SlowOnlyResNet(**NARROW).eval()
    net = SlowOnlyResNet(context="dnl", inserts={"res3": (-1,), "res5": [0]}, **NARROW).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    assert [name for name, m in net.named_modules() if name.endswith("context") and m] == [
        "res3.1.context",
        "res5.0.context",
    ]
    clip = torch.randn(1, 3, 2, 32, 40)
    with torch.no_grad():
        assert torch.equal(net(clip), plain(clip))
        assert net(clip).shape == (1, 64, 2, 1, 2) and net.out_channels == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(depth=20), "depth 20; use 18, 34"),
        (dict(temporal_kernels=(1, 1, 3)), "four odd lengths"),
        (dict(temporal_kernels=(1, 1, 2, 3)), "four odd lengths"),
        (dict(context="gc"), "inserts is empty"),
        (dict(inserts={"res3": [0]}), "context is empty"),
        (dict(context="gc", inserts={"res6": [0]}), "inserts.res6: no such stage"),
        (dict(context="gc", inserts={"res3": [4]}), "inserts.res3: no block 4; res3 has blocks 0"),
        (dict(context="gcc", inserts={"res3": [0]}), "unknown context block 'gcc'"),
        (dict(norm="XN"), "unknown norm 'XN'"),
    ],
)
def test_wrong_options(options, message):
    with torch.device("meta"), pytest.raises(UsageError, match=message):
        SlowOnlyResNet(**options)
