"""ResNets with context blocks: against detectron2's own, shapes, inserts, errors."""

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, DisentangledNonLocalBlock, GlobalContextBlock
from dnl_d2.modeling import build_context_resnet
from dnl_d2.modeling.backbone import ContextBasicBlock, ContextBottleneckBlock, expand_inserts
from dnl_d2.modeling.backbone.residual import POSITIONS
from tests.modeling.configs import assert_same_features, config, small_resnet
from tests.modeling.detectors import randomised

IMAGE = ShapeSpec(channels=3)
LEVELS = ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (18, {"RES2_OUT_CHANNELS": 64}),
        (50, {}),
        (50, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4, "STRIDE_IN_1X1": False}),
        (50, {"RES5_DILATION": 2}),
    ],
)
def test_without_blocks_it_is_detectron2s_resnet(depth, options):
    cfg = config(DEPTH=depth, OUT_FEATURES=LEVELS, **options)
    torch.manual_seed(0)
    theirs = randomised(build_resnet_backbone(cfg, IMAGE))
    ours = build_backbone(cfg, IMAGE)
    assert_same_features(ours, theirs)
    assert list(ours.output_shape()) == LEVELS
    assert ours.output_shape() == theirs.output_shape()


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [
        (32, [4, 8, 16, 32], [1, 1, 1, 1, 1, 1]),
        (16, [4, 8, 16, 16], [1, 1, 1, 1, 2, 2]),
        (8, [4, 8, 8, 8], [1, 2, 2, 2, 4, 4]),
    ],
)
def test_dilation_halves_in_the_first_block(output_stride, strides, dilations):
    model = build_context_resnet(depth=50, output_stride=output_stride, out_features=LEVELS)
    assert [s.stride for s in model.output_shape().values()] == strides
    convs = [b.conv2 for stage in (model.res4, model.res5) for b in stage]
    assert [convs[i].dilation[0] for i in (0, 1, 5, 6, 7, 8)] == dilations
    assert all(conv.padding == conv.dilation for conv in convs)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_depth_has_its_blocks(depth):
    with torch.device("meta"):
        model = build_context_resnet(depth=depth, stem="v1c", output_stride=8)
    blocks = {18: 8, 34: 16, 50: 16, 101: 33, 152: 50}[depth]
    assert sum(len(stage) for stage in model.stages) == blocks
    assert model.stem.conv1.out_channels == 32 and model.stem.conv3.out_channels == 64
    assert model.output_shape()["res5"].channels == (512 if depth < 50 else 2048)


def test_odd_sizes_keep_the_published_feature_size():
    model = small_resnet(output_stride=8, stem="v1c").eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 769, 33))["res5"].shape[-2:] == (97, 5)


@pytest.mark.parametrize("position", ["after_conv3", "after_add"])
@pytest.mark.parametrize("depth", [18, 50])
def test_plain_weights_are_a_subset_and_an_identity_block_changes_nothing(depth, position):
    torch.manual_seed(0)
    options = {"depth": depth, "width_per_group": 4}
    plain = randomised(small_resnet(**options)).eval()
    inserts = {"res3": "all", "res4": [-2]}
    with_block = small_resnet(**options, context="dnl", inserts=inserts, position=position).eval()
    result = with_block.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(".context." in key for key in result.missing_keys)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(with_block(x)["res5"], plain(x)["res5"])


@pytest.mark.parametrize("depth", [18, 50])
def test_positions_are_where_the_papers_put_them(depth):
    """Recomputes one residual block by hand with a block that is no identity."""
    torch.manual_seed(0)
    outputs = {}
    for position in ("after_conv3", "after_add"):
        torch.manual_seed(0)
        model = build_context_resnet(
            depth=depth,
            out_features=["res2"],
            context={"name": "gc", "ratio": 0.25, "zero_init": False},
            inserts={"res2": [0]},
            position=position,
        )
        block = randomised(model).eval().res2[0]
        x = torch.randn(1, block.in_channels, 9, 7, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            branch = block.conv2(block.conv1(x).relu())
            if depth == 50:
                branch = block.conv3(branch.relu())
            shortcut = x if block.shortcut is None else block.shortcut(x)
            if position == "after_conv3":
                expected = (block.context(branch) + shortcut).relu()
            else:
                expected = block.context(branch + shortcut).relu()
            outputs[position] = block(x)
        torch.testing.assert_close(outputs[position], expected)
    assert not torch.allclose(outputs["after_conv3"], outputs["after_add"])


def test_inserts_land_in_the_named_blocks():
    model = small_resnet(context="gc", inserts={"res3": [0], "res5": "all"})
    found = [
        f"{name}.{i}"
        for name, stage in zip(model.stage_names, model.stages, strict=True)
        for i, block in enumerate(stage)
        if isinstance(block.context, GlobalContextBlock)
    ]
    assert found == ["res3.0", "res5.0", "res5.1"]


@pytest.mark.parametrize(
    ("inserts", "expected"),
    [
        ({"res4": [-2]}, {"res4": {4}}),
        ({"res4": [-2], "res5": [-2, -1, 0]}, {"res4": {4}, "res5": {0, 1, 2}}),
        ({"res5": "all"}, {"res5": {0, 1, 2}}),
        ({"res5": ["all"]}, {"res5": {0, 1, 2}}),
    ],
)
def test_insert_grammar(inserts, expected):
    assert expand_inserts(inserts, {"res4": 6, "res5": 3}) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 51}, "depth 51"),
        ({"stem": "v2"}, "stem 'v2'"),
        ({"output_stride": 4}, "output_stride 4"),
        ({"shortcut": "max_pool"}, "shortcut 'max_pool'"),
        ({"out_features": ["res6"]}, "res6"),
        ({"context": "dnl"}, "no stage"),
        ({"inserts": {"res4": [0]}}, "none is named"),
        ({"context": {"name": "dnl"}, "inserts": {"res4": [2]}}, r"res4\[2\]: res4 has 2 blocks"),
        ({"context": {"name": "dnl"}, "inserts": {"res4": [-3]}}, "use -2 to 1"),
        ({"context": {"name": "dnl"}, "inserts": {"res9": [0]}}, "'res9'"),
        ({"context": {"name": "dnl"}, "inserts": {"res4": "some"}}, "not a list"),
        ({"context": {"name": "dnl"}, "inserts": {"res4": -1}}, "-1 is not a list"),
        ({"context": {"name": "dnl"}, "inserts": ["res4"]}, "write them like"),
        ({"context": {"name": "dnll"}, "inserts": {"res4": [0]}}, "did you mean 'dnl'"),
        ({"context": {"name": "dnl", "heads": 8}, "inserts": {"res4": [0]}}, "no argument 'heads'"),
        ({"context": "dnl", "inserts": {"res2": [0]}, "freeze_at": 2}, "frozen"),
        ({"context": "dnl", "inserts": {"res2": [0]}, "position": "before"}, "position 'before'"),
        ({"context": "dnl", "inserts": {"res4": [0]}, "out_features": ["res3"]}, "has res2, res3"),
    ],
)
def test_bad_options_are_one_clear_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        small_resnet(**options)
    assert "\n" not in str(error.value)


def test_yaml_fpn_places_the_block():
    cfg = config(
        "build_context_resnet_fpn_backbone",
        DEPTH=50,
        OUT_FEATURES=LEVELS,
        CONTEXT_POSITION="after_add",
        **{"CONTEXT.NAME": "dnl", "CONTEXT.PRESET": "paper-det", "CONTEXT_STAGES.RES4": [-2]},
    )
    cfg.MODEL.FPN.IN_FEATURES = LEVELS
    model = build_backbone(cfg, IMAGE)
    block = model.bottom_up.res4[4]
    assert isinstance(block.context, DisentangledNonLocalBlock) and block.position == "after_add"
    assert block.context.inter_channels == 256
    with torch.no_grad():
        features = model.eval()(torch.randn(1, 3, 64, 64))
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", [(9, 7), (8, 6), (1, 2)])
def test_pooled_shortcut_by_hand(depth, size):
    """Means over the 2x2 positions that exist, then the 1x1 convolution with stride 1."""
    torch.manual_seed(0)
    model = build_context_resnet(depth=depth, out_features=["res3"], shortcut="avg_pool")
    block = randomised(model).eval().res3[0]
    x = torch.randn(1, block.in_channels, *size)
    rows, columns = ((s + 1) // 2 for s in size)
    pooled = torch.zeros(1, block.in_channels, rows, columns)
    for i, j in np.ndindex(rows, columns):
        pooled[..., i, j] = x[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    weight = block.shortcut.weight[:, :, 0, 0]
    with torch.no_grad():
        shortcut = block.shortcut.norm(torch.einsum("oc,nchw->nohw", weight, pooled))
        torch.testing.assert_close(block(x), (block.residual(x) + shortcut).relu())


def test_shortcuts_that_do_not_stride_do_not_pool():
    def build(shortcut):
        with torch.device("meta"):
            return build_context_resnet(depth=50, output_stride=8, shortcut=shortcut)

    pooled, plain = build("avg_pool"), build("conv")
    blocks = {name: m for name, m in pooled.named_modules() if hasattr(m, "pool")}
    assert [name for name, block in blocks.items() if block.pool is not None] == ["res3.0"]
    assert list(pooled.state_dict()) == list(plain.state_dict())


def test_yaml_names_shortcut_and_dilation():
    cfg = config(
        DEPTH=50,
        OUT_FEATURES=["res5"],
        STEM_TYPE="v1c",
        OUTPUT_STRIDE=8,
        SHORTCUT="avg_pool",
        HALVE_FIRST_DILATION=False,
        STRIDE_IN_1X1=False,
    )
    with torch.device("meta"):
        model = build_backbone(cfg, IMAGE)
    assert model.res3[0].pool.kernel_size == 2 and model.res3[0].shortcut.stride == (1, 1)
    assert [block.conv2.dilation[0] for block in model.res4] == [2] * 6
    assert [block.conv2.dilation[0] for block in model.res5] == [4] * 3


def test_unknown_dilation_is_refused_not_dropped():
    with pytest.raises(UsageError, match="RES5_DILATION 4"):
        build_backbone(config(RES5_DILATION=4), IMAGE)


def norm_with_relu(channels):
    """Its backward pass needs its own result."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


@pytest.mark.parametrize("name", CONTEXT_BLOCKS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("norm", [None, "BN", norm_with_relu])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_trains_wherever_it_is(name, position, norm, bottleneck):
    """No operation in place overwrites what a gradient needs."""
    context = {"name": name} | ({} if name == "gc" else {"norm": norm})
    if callable(norm) and name not in ("apnb", "afnb", "gc"):
        context["norm"] = "GN" if name != "snl" else None  # zero-initialised: must be one norm
    options = {"context": context, "position": position}
    if bottleneck:
        block = ContextBottleneckBlock(32, 32, bottleneck_channels=8, **options)
    else:
        block = ContextBasicBlock(32, 32, **options)
    x = torch.randn(2, 32, 7, 9, requires_grad=True)
    block(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN", "SyncBN", ""])
def test_norm_of_any_kind(norm):
    model = build_context_resnet(
        depth=18, norm=norm, context={"name": "nl", "norm": norm}, inserts={"res5": [-1]}
    )
    with torch.no_grad():
        assert torch.isfinite(model.eval()(torch.randn(1, 3, 64, 64))["res5"]).all()


def test_a_seed_gives_the_weights_that_it_always_gave():
    """Figures of seeded runs depend on the order in which layers are made."""
    torch.manual_seed(7)
    model = build_context_resnet(depth=18, stem="v1c", out_features=["res5"])
    first, stem = model.res2[0].conv1.weight, model.stem.conv1.weight
    assert first.flatten()[:2].tolist() == pytest.approx([0.068366497, 0.036574267], rel=1e-6)
    assert stem.flatten()[:2].tolist() == pytest.approx([0.104758456, -0.191942334], rel=1e-6)
