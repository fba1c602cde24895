"""Optimised models against the models they were made from."""

import copy
import io

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils import prune

from dnl_d2 import optimize_for_inference
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block
from tests.checkpoint.models import DETECTOR, SEGMENTOR, build, randomised
from tests.modeling.configs import NO_THRESHOLDS, small_resnet

_HEAD = "MODEL__SEM_SEG_HEAD__"
# (changes to the segmentor, norms that stay)
SEGMENTORS = {
    "fcn": ({_HEAD + "CONTEXT__NAME": ""}, 0),
    "nl": ({_HEAD + "CONTEXT__NAME": "nl"}, 0),
    "gc": ({_HEAD + "CONTEXT__NAME": "gc", _HEAD + "CONTEXT__NORM": None}, 0),
    "dnl": ({}, 0),
    "dnl aligned, SyncBN": ({_HEAD + "ALIGN_CORNERS": True, _HEAD + "NORM": "SyncBN"}, 0),
    "dnl paper-seg": ({_HEAD + "CONTEXT__PRESET": "paper-seg"}, 1),  # a norm of a sum
    "dnl paddleseg": ({_HEAD + "CONTEXT__PRESET": "paddleseg"}, 0),
    "frozen backbone": ({"MODEL__RESNETS__NORM": "FrozenBN"}, 0),
    "GN": ({_HEAD + "NORM": "GN", _HEAD + "CONVS_DIM": 32, _HEAD + "AUXILIARY__CONVS_DIM": 32}, 0),
    "sliding": ({"TEST__SLIDE__WINDOW": [24, 33], "TEST__SLIDE__STRIDE": [16, 20]}, 0),
    "SemanticSegmentor": ({"MODEL__META_ARCHITECTURE": "SemanticSegmentor"}, 0),
    "ann": (
        {
            _HEAD + "NAME": "AsymmetricHead",
            _HEAD + "IN_FEATURES": ["res4", "res5"],
            _HEAD + "ASYMMETRIC__PROJECT_CHANNELS": 8,
            _HEAD + "CONTEXT__NAME": "",
            _HEAD + "CONTEXT__NORM": None,
        },
        0,
    ),
}
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def segmentor(**changes):
    changes = {name: value for name, value in changes.items() if value is not None}
    base = dict(SEGMENTOR)
    if _HEAD + "CONTEXT__NAME" in changes and changes[_HEAD + "CONTEXT__NAME"] in ("", "gc"):
        del base["MODEL.SEM_SEG_HEAD.CONTEXT.NORM"]
    return build(base, **changes).double()


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(3, *size, generator=generator) * 255} for size in sizes]


@torch.no_grad()
def predict(model, size=(33, 49)):
    return model(images(size))[0]["sem_seg"]


def norms(model):
    return [m for m in model.modules() if isinstance(m, _BATCH_NORMS)]


@pytest.mark.parametrize(("changes", "left"), SEGMENTORS.values(), ids=SEGMENTORS)
def test_segmentors_predict_the_same(changes, left):
    model = segmentor(**changes)
    optimised = optimize_for_inference(model)
    expected, got = predict(model), predict(optimised)
    assert expected.dtype == torch.float64 and expected.std() > 0
    torch.testing.assert_close(got, expected)
    assert len(norms(optimised)) == left and len(norms(model)) > left
    kinds = {type(m) for m in optimised.modules()}
    assert not kinds & {nn.Dropout, nn.Dropout2d}
    assert not any("auxiliary" in key for key in optimised.state_dict())
    for name, parameter in optimised.named_parameters():
        assert not parameter.requires_grad
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last), name


def test_single_precision_is_close_enough():
    model = segmentor().float()
    expected, got = (predict(m, (65, 97)) for m in (model, optimize_for_inference(model)))
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


def test_half_precision_folds_in_single_precision():
    torch.manual_seed(0)
    conv = randomised(Conv2d(4, 6, 1, bias=False, norm=nn.BatchNorm2d(6))).bfloat16()
    folded = optimize_for_inference(conv)
    assert folded.weight.dtype == folded.bias.dtype == torch.bfloat16
    wanted = copy.deepcopy(conv).double()
    scale = wanted.norm.weight / (wanted.norm.running_var + wanted.norm.eps).sqrt()
    weight = wanted.weight * scale[:, None, None, None]
    torch.testing.assert_close(folded.weight.double(), weight, rtol=2**-8, atol=0)
    bias = wanted.norm.bias - wanted.norm.running_mean * scale
    torch.testing.assert_close(folded.bias.double(), bias, rtol=2**-8, atol=1e-6)


def test_detector_finds_the_same():
    norm = {"MODEL__RESNETS__NORM": "FrozenBN", "MODEL__FPN__NORM": "BN"}
    model = build(DETECTOR, **norm, **NO_THRESHOLDS)
    optimised = optimize_for_inference(model)
    assert norms(model) and not norms(optimised)
    with torch.no_grad():
        expected, got = (m(images((64, 96)))[0]["instances"].scores for m in (model, optimised))
        assert len(expected) == 100
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
        x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
        expected = model.backbone.double()(x)
        got = optimize_for_inference(model.backbone)(x)
    for level in expected:
        torch.testing.assert_close(got[level], expected[level])


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_backbone(modulated):
    torch.manual_seed(0)
    model = small_resnet(
        depth=50,
        width_per_group=4,
        out_features=["res3"],
        deform_on=["res3"],
        deform_modulated=modulated,
        context="gc",
        inserts={"res3": [-2]},
    )
    model = randomised(model).double()
    optimised = optimize_for_inference(model)
    x = torch.randn(1, 3, 33, 49, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(optimised(x)["res3"], model(x)["res3"])
    assert not norms(optimised)


@pytest.mark.parametrize("name", CONTEXT_BLOCKS)
@pytest.mark.parametrize("spatial", [(7,), (5, 7), (3, 4, 5)])
def test_bare_blocks_of_every_rank(name, spatial):
    torch.manual_seed(0)
    spec = {"name": name} if name == "gc" else {"name": name, "norm": "BN"}
    block = randomised(build_context_block(spec, 8)).double()
    x = torch.randn(2, 8, *spatial, dtype=torch.float64)
    before = x.clone()
    optimised = optimize_for_inference(block)
    assert not norms(optimised)
    with torch.no_grad():
        torch.testing.assert_close(optimised(x), block(x))
    assert torch.equal(x, before)


def test_the_given_model_is_left_alone():
    model = segmentor().train()
    state = copy.deepcopy(model.state_dict())
    optimised = optimize_for_inference(model)
    assert model.training and not optimised.training
    assert all(p.requires_grad for p in model.parameters())
    assert model.sem_seg_head.auxiliary is not None and not model._forward_pre_hooks
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)
    assert not any(a.data_ptr() == b.data_ptr() for a in model.buffers() for b in norms(optimised))
    losses = model([i | {"sem_seg": torch.zeros(33, 49).long()} for i in images((33, 49))] * 2)
    sum(losses.values()).backward()


def test_training_is_refused_and_evaluation_goes_on():
    optimised = optimize_for_inference(segmentor())
    with pytest.raises(UsageError, match=r"cannot train: call \.eval\(\) on it"):
        predict(optimised.train())
    predict(optimised.eval())


def test_twice_is_once():
    first = optimize_for_inference(segmentor())
    second = optimize_for_inference(first)
    assert second is not first and len(second._forward_pre_hooks) == 1
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_copies_and_pickles():
    optimised = optimize_for_inference(segmentor())
    file = io.BytesIO()
    torch.save(optimised, file)
    file.seek(0)
    for other in (copy.deepcopy(optimised), torch.load(file, weights_only=False)):
        assert torch.equal(predict(other), predict(optimised))
        with pytest.raises(UsageError):
            predict(other.train())


def test_wrapped_models_are_unwrapped():
    model = segmentor()
    optimised = optimize_for_inference(nn.DataParallel(model))
    assert type(optimised) is type(model) and optimised is not model
    torch.distributed.init_process_group(
        "gloo", rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        assert type(optimize_for_inference(parallel)) is type(model)
    finally:
        torch.distributed.destroy_process_group()


def test_no_model():
    with pytest.raises(UsageError, match=r"takes a torch.nn.Module .*got dict; .* is its .model"):
        optimize_for_inference({})


class _Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class _NormFirst(Conv2d):
    def forward(self, x):
        return super(Conv2d, self).forward(self.norm(x))


def _hooked():
    norm = nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda module, inputs, out: out + 1)
    return Conv2d(4, 4, 3, norm=norm)


def _weight_norm():
    conv = Conv2d(4, 4, 3, norm=nn.BatchNorm2d(4))
    return nn.utils.parametrizations.weight_norm(conv)


def _pruned():
    conv = Conv2d(4, 4, 3, norm=nn.BatchNorm2d(4))
    with torch.no_grad():  # what is computed within a graph cannot be copied
        return prune.random_unstructured(conv, "weight", 0.5)


@pytest.mark.parametrize(
    "conv",
    [
        Conv2d(4, 4, 3, norm=nn.BatchNorm2d(4, track_running_stats=False)),
        Conv2d(4, 4, 3, norm=nn.InstanceNorm2d(4, track_running_stats=True)),
        Conv2d(4, 4, 3, norm=_Doubled(4)),
        _NormFirst(4, 4, 3, norm=nn.BatchNorm2d(4)),
        _hooked(),
        _weight_norm(),
        _pruned(),
    ],
    ids=["no statistics", "instance", "subclass", "other forward", "hook", "weight norm", "pruned"],
)
def test_what_cannot_be_folded_stays(conv):
    torch.manual_seed(0)
    conv = randomised(conv).double()
    x = torch.randn(3, 4, 9, 9, dtype=torch.float64)
    optimised = optimize_for_inference(conv)
    assert optimised.norm is not None
    with torch.no_grad():
        torch.testing.assert_close(optimised(x), conv(x))


def test_one_norm_of_two_convolutions_and_one_convolution_twice():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    first, second = (Conv2d(4, 4, 1, norm=norm, activation=torch.tanh) for _ in range(2))
    model = randomised(nn.Sequential(first, second, nn.Dropout(), first)).double()
    optimised = optimize_for_inference(model)
    assert not norms(optimised) and optimised[0] is optimised[3]
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(optimised(x), model(x))


def test_hooks_of_a_convolution_see_what_they_saw():
    model = segmentor()
    seen = []
    model.sem_seg_head.fuse.register_forward_hook(lambda module, inputs, out: seen.append(out))
    predict(model)
    predict(optimize_for_inference(model))
    torch.testing.assert_close(seen[1], seen[0])


def test_gradients_reach_the_input():
    model = segmentor()
    grads = []
    for m in (model, optimize_for_inference(model)):
        x = torch.full((1, 3, 33, 49), 0.5, dtype=torch.float64, requires_grad=True)
        m.sem_seg_head(m.backbone(x))[0][0, 0].sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[1], grads[0])
