"""Models whose parts are compiled, and segmentors and heads as graphs for every size."""

import copy

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicStem

from dnl_d2 import optimize_for_inference
from dnl_d2.errors import UsageError
from dnl_d2.layers import build_context_block
from dnl_d2.modeling import AsymmetricHead, ContextHead, ContextSegmentor, compilation
from dnl_d2.modeling.backbone import ContextResNet
from dnl_d2.modeling.backbone.residual import ContextBasicBlock
from dnl_d2.modeling.compilation import compile_parts, require_compiler, uncompiled
from dnl_d2.modeling.losses import CrossEntropyLoss, DiceLoss, HardPixels, LovaszLoss
from dnl_d2.prediction.attention import look
from tests.layers.cases import randomize

SHAPES = {"res2": ShapeSpec(channels=8, stride=4), "res3": ShapeSpec(channels=16, stride=8)}
FREE = dict(fullgraph=True, dynamic=True, backend="eager")
# The first of these is compiled; another number and another size are not.
SIZES = [(2, 56, 80), (4, 56, 80), (2, 44, 96)]
STANCES = ["default", "fail_on_recompile", "fail_on_recompile"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Compiled without a compiler, and no graph of an earlier test."""
    monkeypatch.setattr(compilation, "_BACKEND", "eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def head(context="dnl", **options):
    options = dict(channels=12, num_classes=5, norm="BN") | options
    if context == "ann":
        return AsymmetricHead(SHAPES, in_features=["res2", "res3"], project_channels=6, **options)
    return ContextHead(SHAPES, in_features=["res3"], context_block=context, **options)


def auxiliary():
    options = dict(channels=6, num_classes=5, norm="BN", num_convs=1, dropout=0.0)
    return ContextHead(SHAPES, in_features=["res2"], **options)


def segmentor(**options):
    """A block of ResNet in each of two stages, the second one with a context block."""
    stages = [
        [ContextBasicBlock(8, 8)],
        [ContextBasicBlock(8, 16, stride=2, context={"name": "gc", "ratio": 0.25})],
    ]
    torch.manual_seed(0)
    model = ContextSegmentor(
        backbone=ContextResNet(BasicStem(3, 8, norm="BN"), stages, out_features=list(SHAPES)),
        sem_seg_head=head(dropout=0.0, auxiliary=auxiliary(), **options),
        pixel_mean=[120.0] * 3,
        pixel_std=[60.0] * 3,
    )
    return randomize(model, 0).double()  # else sharp softmaxes round visibly


def batch(count, height, width):
    generator = torch.Generator().manual_seed(height)
    images = torch.randint(256, (count, 3, height, width), generator=generator)
    labels = torch.randint(5, (count, height, width), generator=generator)
    return [{"image": x.byte(), "sem_seg": y} for x, y in zip(images, labels, strict=True)]


def step(model, data):
    """Losses and gradients."""
    losses = model(data)
    gradients = torch.autograd.grad(sum(losses.values()), list(model.parameters()))
    return losses, gradients


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


# ---- graphs of heads and segmentors


@pytest.mark.parametrize(
    ("training", "options"),
    [
        (True, {"context": "dnl"}),
        (False, {"context": "dnl"}),
        (True, {"context": "ann"}),
        (False, {"context": "gc", "half_pixel_centers": False}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_one_graph_of_a_head_serves_every_size(training, options):
    model = head(auxiliary=auxiliary(), **options).train(training).requires_grad_(training)
    compiled = torch.compile(model, **FREE)
    for stance, (count, height, width) in zip(STANCES, SIZES, strict=True):
        features = {"input": torch.randn(count, 3, height, width)}
        for name, shape in SHAPES.items():
            size = (-(-side // shape.stride) for side in (height, width))
            features[name] = torch.randn(count, shape.channels, *size)
        targets = torch.randint(5, (count, height, width)) if training else None
        with torch.compiler.set_stance(stance), torch.random.fork_rng():
            found = compiled(features, targets)
        if not training:  # else dropout
            torch.testing.assert_close(found[0], model(features)[0])


def test_one_graph_of_a_segmentor_serves_every_size():
    """Its backbone in training, too; heads have the test above."""
    model = segmentor(context=None).eval()
    trained = copy.deepcopy(model.backbone).train()
    predict = torch.compile(model.logits, **FREE)
    train = torch.compile(trained, **FREE)
    for stance, (count, height, width) in zip(STANCES, SIZES, strict=True):
        images = torch.stack([x["image"] for x in batch(count, height, width)])
        with torch.compiler.set_stance(stance):
            with torch.no_grad():
                found = predict(images)
                torch.testing.assert_close(found, model.logits(images))
            normalised = (images - model.pixel_mean) / model.pixel_std
            torch.testing.assert_close(train(normalised), trained(normalised))


@pytest.mark.parametrize(
    ("loss", "whole"),
    [
        (CrossEntropyLoss(ohem=HardPixels(min_kept=9)), True),
        (CrossEntropyLoss(ohem=HardPixels(threshold=None, min_kept=9)), True),
        (DiceLoss(), True),
        (LovaszLoss(), False),
    ],
)
def test_graphs_do_not_depend_on_labels(loss, whole):
    """Lovasz has as many steps as there are classes in them, and stays out of the graphs."""
    model = head(None, loss=loss, dropout=0.0)
    features = {"res3": torch.randn(2, 16, 5, 7)}
    compiled = torch.compile(model, backend="eager", fullgraph=whole)
    compiled(features, torch.randint(5, (2, 40, 56)))
    targets = torch.full((2, 40, 56), 255)
    targets[:, 20:] = 1
    with torch.compiler.set_stance("fail_on_recompile"):
        found = compiled(features, targets)
    torch.testing.assert_close(found, model(features, targets))


# ---- parts of models


def test_a_model_with_compiled_parts_trains_as_before():
    model = segmentor().train()
    wanted = step(copy.deepcopy(model), batch(2, 40, 56))
    names = list(model.state_dict())
    assert compile_parts(model) == ["backbone", "sem_seg_head"]
    before = graphs()
    torch.testing.assert_close(step(model, batch(2, 40, 56)), wanted)
    assert graphs() == before + 2
    assert list(model.state_dict()) == names


def test_evaluation_may_go_on_uncompiled():
    model = segmentor()
    compile_parts(model)
    with uncompiled(), torch.no_grad():
        for size in ((40, 56), (33, 65)):
            model.eval()(batch(1, *size))
    assert not graphs()
    model.train()(batch(2, 40, 56))
    assert graphs() == 2


def test_a_model_without_known_parts_is_compiled_whole():
    model = randomize(build_context_block("gc", 8), 0)
    x = torch.randn(2, 8, 5, 7)
    wanted = model(x)
    assert compile_parts(model) == []
    torch.testing.assert_close(model(x), wanted)
    assert graphs() == 1


def test_an_optimised_copy_is_compiled_and_its_original_is_not():
    model = segmentor().eval()
    fast = optimize_for_inference(model, compile=True)
    before = graphs()  # that something can be compiled has been tried
    data = batch(1, 41, 56)
    with torch.no_grad():
        wanted = model(data)
        assert graphs() == before
        torch.testing.assert_close(fast(data), wanted)
        assert graphs() == before + 2
        optimize_for_inference(fast)(data)
        assert graphs() == before + 2


def test_a_compiled_model_shows_where_it_looks():
    model = optimize_for_inference(segmentor(), compile=True)
    (data,) = batch(1, 40, 56)
    data |= {"height": 40, "width": 56}
    with torch.no_grad():
        model([data])  # compiled without the hooks that look on
    maps = look(model, data["image"].permute(1, 2, 0).numpy(), data)
    assert list(maps.blocks) == ["backbone.res3.0.context", "sem_seg_head.context_block"]


def test_what_cannot_be_compiled_names_the_key(monkeypatch):
    def fails(*_):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(compilation, "_BACKEND", fails)
    words = r"SOLVER.COMPILE: .*No working C\+\+ compiler found.* set SOLVER.COMPILE to False"
    with pytest.raises(UsageError, match=words) as error:
        require_compiler("cpu", "SOLVER.COMPILE")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_with_pytorchs_own_compiler(monkeypatch):
    """A head alone, with a block and a loss: the less there is, the shorter the compiler takes."""
    monkeypatch.setattr(compilation, "_BACKEND", "inductor")
    model = randomize(head(dropout=0.0, num_convs=1), 0).double().train()
    features = {"res3": torch.randn(2, 16, 5, 7, dtype=torch.float64)}
    targets = torch.randint(5, (2, 40, 56))

    def losses_and_gradients():
        losses = model(features, targets)[1]
        return losses, torch.autograd.grad(sum(losses.values()), list(model.parameters()))

    wanted = losses_and_gradients()
    compile_parts(model)
    losses, gradients = losses_and_gradients()
    assert graphs() == 1
    torch.testing.assert_close(losses, wanted[0])
    for found, expected in zip(gradients, wanted[1], strict=True):
        largest = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * (largest + 0.1))
