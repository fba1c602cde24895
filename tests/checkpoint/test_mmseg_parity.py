"""Converted models of mmsegmentation give its outputs, label maps, losses and gradients."""

import pytest
import torch
from detectron2.modeling import Backbone
from mmcv.cnn import ContextBlock, NonLocal2d

from dnl_d2.checkpoint.keymap import to_ours
from dnl_d2.checkpoint.sources.mmseg import global_context_rules, non_local_rules
from dnl_d2.layers import GlobalContextBlock, NonLocalBlock
from dnl_d2_parity import comparison
from dnl_d2_parity.references import mmseg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

LOGITS = 1e-4  # of whole networks, in fp32
BLOCK = 1e-9  # of a block, in float64
PUBLISHED = ("nl", "gc", "dnl", "ann")
SIZE = (33, 65)


def narrow(method, **options):
    """A quarter of the published width, a tenth of the time.

    All of the width: the first models below, and those of test_check_parity.py, which train too.
    """
    return comparison.twins(method, width=16, **options)


def check_keys(twins):
    keys = twins.keys
    assert not (keys.missing or keys.mismatched or keys.unexpected or twins.left_over)
    assert len(keys.matched) == len(twins.ours.state_dict())


@pytest.mark.parametrize(
    ("depth", "method", "align_corners", "num_classes", "build"),
    [
        # Of each method every pair of depth, corners and classes.
        *(
            (depth, method, corners, classes, build)
            for method in PUBLISHED
            for depth, corners, classes, build in (
                (50, False, 19, comparison.twins),
                (50, True, 21, narrow),
                (50, False, 150, narrow),
                (101, True, 19, narrow),
                (101, False, 21, narrow),
                (101, True, 150, narrow),
            )
        ),
        (50, "fcn", False, 19, comparison.twins),
        (50, "fcn", True, 150, narrow),
    ],
)
def test_a_converted_file_gives_the_published_logits(
    depth, method, align_corners, num_classes, build
):
    twins = build(
        method, depth=depth, align_corners=align_corners, num_classes=num_classes, seed=num_classes
    )
    check_keys(twins)
    result = comparison.predict(twins, comparison.picture(*SIZE, seed=depth), (71, 130))
    assert result.logits < LOGITS
    assert result.pixels == result.ties


@pytest.mark.parametrize("method", PUBLISHED)
def test_blocks_are_equal_in_float64(method):
    assert comparison.block_difference(narrow(method)) < BLOCK


@pytest.mark.parametrize("method", ["nl", "gc", "dnl"])
def test_every_parameter_of_a_block_counts(method):
    """But for the biases that the softmax cancels."""
    twins = narrow(method)
    blind = {"nl": {"key.bias"}, "gc": {"unary.bias"}}
    blind["dnl"] = {"query.bias", "key.bias", "unary.bias"}  # the mean is taken off
    for name, parameter in twins.ours.sem_seg_head.context_block.named_parameters():
        saved = parameter.detach().clone()
        parameter.data *= 1.01
        difference = comparison.block_difference(twins, size=(4, 5))
        parameter.data = saved
        assert (difference > BLOCK) == (name not in blind[method]), name


# ---- mmcv's blocks with the options that no segmentation head uses


def ours_of(rules, theirs, block):
    """Gives ``block`` the weights of mmcv's, by the key map; both random."""
    for number, parameter in enumerate(theirs.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    # With sub-sampling mmcv wraps the convolution and the pool in one nn.Sequential.
    state = {f"a.{k.replace('.0.conv', '.conv')}": v for k, v in theirs.state_dict().items()}
    converted = to_ours(state, rules("a", "b"))
    assert not converted.unexpected
    block.load_state_dict({k.removeprefix("b."): v for k, v in converted.state.items()})
    return block


@pytest.mark.parametrize("norm", [None, "BN"])
@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("size", [(9, 13), (8, 6)])
@pytest.mark.parametrize(
    ("mode", "use_scale"),
    [
        ("gaussian", True),
        ("embedded_gaussian", True),
        ("embedded_gaussian", False),
        ("dot_product", True),
        ("concatenation", True),
    ],
)
def test_non_local_options(mode, use_scale, sub_sample, norm, size):
    theirs = NonLocal2d(
        in_channels=6,
        mode=mode,
        use_scale=use_scale,
        sub_sample=sub_sample,
        norm_cfg=norm and dict(type=norm),
    )
    ours = NonLocalBlock(6, mode=mode, use_scale=use_scale, sub_sample=sub_sample, norm=norm)
    ours = ours_of(non_local_rules, theirs, ours)
    assert comparison.compare_blocks(ours, theirs, size=size) < BLOCK


@pytest.mark.parametrize("pooling", ["att", "avg"])
@pytest.mark.parametrize("fusion", [("add",), ("mul",), ("add", "mul")])
@pytest.mark.parametrize("ratio", [1 / 4, 1 / 16])
def test_global_context_options(pooling, fusion, ratio):
    theirs = ContextBlock(
        in_channels=32,
        ratio=ratio,
        pooling_type=pooling,
        fusion_types=tuple(f"channel_{f}" for f in fusion),
    )
    ours = GlobalContextBlock(32, ratio=ratio, pooling=pooling, fusion=fusion)
    ours = ours_of(global_context_rules, theirs, ours)
    assert comparison.compare_blocks(ours, theirs, size=(9, 13)) < BLOCK


# ---- inference


@pytest.fixture(scope="module", params=[False, True], ids=["corners free", "corners aligned"])
def dnl(request):
    """Not to be changed by tests, but for how it predicts."""
    return narrow("dnl", align_corners=request.param, seed=3)


@pytest.mark.parametrize("size", [None, (131, 203), (40, 61)], ids=str)
@pytest.mark.parametrize(
    ("window", "stride"),
    [
        ((), ()),  # the whole image
        ((41, 57), (24, 31)),  # a stride that divides nothing
        ((40, 40), (40, 40)),  # no overlap but of the last window
        ((65, 97), (33, 48)),  # exactly the image
        ((200, 300), (100, 100)),  # larger than the image
        ((200, 50), (150, 20)),  # larger on one axis
    ],
    ids=str,
)
def test_label_maps_are_equal(dnl, size, window, stride):
    comparison.slide(dnl, window, stride)
    result = comparison.predict(dnl, comparison.picture(65, 97, seed=5), size)
    assert result.logits < LOGITS
    assert result.pixels == result.ties


def test_padding_is_equal(dnl, monkeypatch):
    """Zeros to the right and below after normalisation, cut off again before the resize."""
    comparison.slide(dnl, (), ())
    monkeypatch.setattr(Backbone, "size_divisibility", property(lambda _: 32))
    monkeypatch.setattr(
        dnl.reference.data_preprocessor, "test_cfg", mmseg.Config(dict(size_divisor=32))
    )
    result = comparison.predict(dnl, comparison.picture(65, 97, seed=5), (131, 203))
    assert result.logits < LOGITS
    assert result.pixels == result.ties


def test_inference_can_differ(dnl):
    image, size = comparison.picture(65, 97, seed=5), (131, 203)
    head = dnl.ours.sem_seg_head
    comparison.slide(dnl, (), ())
    head.align_corners = not head.align_corners
    assert comparison.predict(dnl, image, size).logits > 10 * LOGITS
    head.align_corners = not head.align_corners
    comparison.slide(dnl, (41, 57), (24, 31))
    dnl.ours.slide_stride = (24, 30)
    assert comparison.predict(dnl, image, size).pixels > 0
    comparison.slide(dnl, (), ())
    with torch.no_grad():
        head.context_block.unary.weight.mul_(1.2)
        difference = comparison.predict(dnl, image, size).logits
        head.context_block.unary.weight.div_(1.2)
    assert difference > LOGITS


# ---- training


def batch():
    images, labels = comparison.batch(*SIZE, 19)
    assert (labels == 255).any()
    return images, labels


@pytest.mark.parametrize(
    ("method", "align_corners", "average", "steps"),
    [
        ("nl", False, "all", 1),
        ("gc", False, "valid", 1),
        ("dnl", True, "all", 2),
        ("ann", False, "all", 1),
    ],
)
def test_training_is_equal(method, align_corners, average, steps):
    """Dropout, batch norm, auxiliary head and SGD (momentum: the second step).

    In float64: in fp32 rounding turns single ReLUs on or off whose input is all but zero.
    mmsegmentation adds 1e-7 to the number of pixels that it divides the loss by.
    """
    twins = narrow(method, align_corners=align_corners, average=average, dropout=0.1)
    with comparison.float64_constants():
        result = comparison.train(twins.double(), *batch(), steps=steps)
    assert 0 < result.loss < 1e-10
    assert result.gradient < 1e-7
    assert result.weights < 1e-9
    assert result.statistics < 1e-9


@pytest.mark.parametrize("average", ["all", "valid"])
def test_losses_are_equal_in_fp32(average):
    twins = narrow("fcn", average=average, dropout=0.1)
    assert comparison.train(twins, *batch()).loss < 1e-6


def test_training_can_differ():
    twins = narrow("gc")
    twins.ours.sem_seg_head.loss.average = "valid"
    twins.ours.sem_seg_head.auxiliary.loss.average = "all"
    twins.cfg.SOLVER.WEIGHT_DECAY = 5e-3
    result = comparison.train(twins, *batch())
    assert result.loss > 1e-2
    assert result.gradient > 1e-2
    assert result.weights > 1e-5
    twins = narrow("gc")
    with torch.no_grad():
        twins.ours.sem_seg_head.auxiliary.convs[0].weight[0].mul_(1.01)
    assert comparison.train(twins, *batch()).gradient > LOGITS
    assert comparison.gradient_differences(twins)["sem_seg_head.auxiliary.convs.0.weight"] > LOGITS


def test_only_the_shared_projection_of_ann_has_other_statistics():
    """mmsegmentation runs it for queries and again for keys, so its statistics move twice."""
    twins = narrow("ann")
    comparison.train(twins, *batch())
    key = "sem_seg_head.context.attend.key.norm.num_batches_tracked"
    ours, theirs = twins.ours.state_dict(), twins.reference.state_dict()
    assert theirs[twins.origin[key]] - ours[key] == 1
    others = [name for name in ours if name.endswith("num_batches_tracked") and name != key]
    assert all(ours[name] == theirs[twins.origin[name]] for name in others)


def test_no_number_is_a_difference():
    nan = torch.tensor([1.0, float("nan")])
    for pair in ((nan, torch.ones(2)), (torch.ones(2), nan)):
        assert comparison.relative(*pair) == float("inf")
    assert comparison.relative(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])) == 0.25
