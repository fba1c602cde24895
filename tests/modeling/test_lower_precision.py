"""Models for inference in bfloat16 against the models in fp32 that they were made from."""

import copy
import io

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dnl_d2 import optimize_for_inference
from dnl_d2.errors import UsageError
from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block
from dnl_d2.modeling import lower_precision
from dnl_d2.prediction.attention import look
from tests.checkpoint.models import DETECTOR, SEGMENTOR, build, randomised
from tests.modeling.configs import NO_THRESHOLDS, small_resnet

HEAD = "MODEL__SEM_SEG_HEAD__"
SEGMENTORS = {
    "dnl": {},
    "dnl paper-seg": {HEAD + "CONTEXT__PRESET": "paper-seg"},  # a norm of a sum stays, and gamma
    "nl": {HEAD + "CONTEXT__NAME": "nl"},
    "ann": {
        HEAD + "NAME": "AsymmetricHead",
        HEAD + "IN_FEATURES": ["res4", "res5"],
        HEAD + "ASYMMETRIC__PROJECT_CHANNELS": 8,
        HEAD + "CONTEXT__NAME": "",
        HEAD + "CONTEXT__NORM": None,
    },
    "GN": {HEAD + "NORM": "GN", HEAD + "CONVS_DIM": 32, HEAD + "AUXILIARY__CONVS_DIM": 32},
    "sliding": {"TEST__SLIDE__WINDOW": [24, 33], "TEST__SLIDE__STRIDE": [16, 20]},
    "SemanticSegmentor": {"MODEL__META_ARCHITECTURE": "SemanticSegmentor"},
}


def segmentor(**changes):
    base = {k: v for k, v in SEGMENTOR.items() if changes.get(k.replace(".", "__"), 0) is not None}
    return build(base, **{k: v for k, v in changes.items() if v is not None})


def image(*size):
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.rand(3, *size, generator=generator) * 255}


@torch.no_grad()
def predict(model, size=(33, 49)):
    return model([image(*size)])[0]["sem_seg"]


def assert_rounded(got, expected, most=0.02):
    """fp32, not the same, and as near as products of eight bits are."""
    assert got.dtype == expected.dtype == torch.float32
    difference = (got - expected).norm() / expected.norm()
    assert 0 < difference < most


@pytest.mark.parametrize("changes", SEGMENTORS.values(), ids=SEGMENTORS)
def test_segmentors_predict_nearly_the_same_in_fp32(changes):
    model = segmentor(**changes)
    fast = optimize_for_inference(model, precision="bfloat16")
    expected, got = predict(model), predict(fast)
    assert_rounded(got, expected)
    assert (got.argmax(0) == expected.argmax(0)).float().mean() > 0.95
    dtypes = {name: p.dtype for name, p in fast.named_parameters()}
    kept = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert {"sem_seg_head.predictor.weight", "sem_seg_head.predictor.bias"} <= kept
    left = [name for name in kept if not any(x in name for x in ("predictor", "norm", "gamma"))]
    assert not left and len(kept) < len(dtypes) / 2
    assert fast.pixel_mean.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(predict(model), expected)


def test_detectors_find_nearly_the_same():
    model = build(DETECTOR, MODEL__MASK_ON=True, **NO_THRESHOLDS)
    fast = optimize_for_inference(model, precision="bfloat16")
    pooled = []
    for module in fast.modules():
        if isinstance(module, ROIPooler):
            module.register_forward_hook(lambda module, args, out: pooled.append(out.dtype))
    with torch.no_grad():
        expected, got = (m([image(64, 96)])[0]["instances"] for m in (model, fast))
    assert pooled == [torch.float32] * 2  # of boxes and of masks
    assert got.pred_boxes.tensor.dtype == got.scores.dtype == torch.float32
    assert len(got) == len(expected) == 100 and got.pred_masks.shape == expected.pred_masks.shape
    torch.testing.assert_close(got.scores, expected.scores, rtol=0.02, atol=0)
    assert not torch.equal(got.scores, expected.scores)
    dtypes = {name: p.dtype for name, p in fast.named_parameters()}
    last = [name for name in dtypes if name.split(".")[-2] in lower_precision._LAST_LAYERS]
    assert len(last) == 2 * len({"objectness", "deltas", "class", "box", "mask"})
    assert {dtypes[name] for name in last} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name not in last} == {torch.bfloat16}


@pytest.mark.parametrize("name", CONTEXT_BLOCKS)
def test_bare_blocks_take_and_return_fp32(name):
    torch.manual_seed(0)
    block = randomised(build_context_block(name, 8)).eval()
    x = torch.randn(2, 8, 5, 7)
    with torch.no_grad():
        assert_rounded(optimize_for_inference(block, precision="bfloat16")(x), block(x))


def test_deformable_convolutions():
    torch.manual_seed(0)
    options = {"depth": 50, "width_per_group": 4, "out_features": ["res3"], "deform_on": ["res3"]}
    model = randomised(small_resnet(**options)).eval()
    fast = optimize_for_inference(model, precision="bfloat16")
    x = torch.randn(1, 3, 33, 49)
    with torch.no_grad():
        assert_rounded(fast(x)["res3"], model(x)["res3"])


class _Attending(nn.Module):
    """Computes with the weight of its linear layer, without calling it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 8)

    def forward(self, x):
        return self.last(self.attention(x, x, x)[0])


def test_layers_whose_weight_others_read_stay_in_fp32():
    torch.manual_seed(0)
    model, x = _Attending().eval(), torch.randn(1, 5, 8)
    fast = optimize_for_inference(model, precision="bfloat16")
    assert fast.attention.out_proj.weight.dtype == torch.float32
    assert fast.last.weight.dtype == torch.bfloat16
    with torch.no_grad():
        assert_rounded(fast(x), model(x))


@pytest.mark.parametrize("name", ["dnl", "apnb"])
def test_attention_maps_are_fp32(name):
    norm = {HEAD + "CONTEXT__NAME": name, HEAD + "CONTEXT__NORM": "BN"}
    model = segmentor(**norm)
    pixels = (torch.rand(64, 96, 3) * 255).byte().numpy()
    seen, other = (
        look(m, pixels, image(64, 96))
        for m in (model, optimize_for_inference(model, precision="bfloat16"))
    )
    for term in seen.blocks[seen.main_block]:
        weights, rounded = (s.map(s.main_block, term, (9, 90)) for s in (seen, other))
        assert rounded.dtype == "float32" and rounded.sum() == pytest.approx(1, rel=1e-4)
        assert 0 < abs(weights - rounded).max() < 0.2 * weights.max()


def test_copies_and_pickles_and_optimising_again():
    fast = optimize_for_inference(segmentor(), precision="bfloat16")
    expected = predict(fast)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(fast), loaded, optimize_for_inference(fast)):
        assert torch.equal(predict(other), expected)
    with pytest.raises(UsageError, match="has been given another already; optimise the model"):
        optimize_for_inference(fast, precision="bfloat16")


@pytest.mark.parametrize(
    ("precision", "message"),
    [("half", "unknown precision 'half'; use one of float32, bfl"), ("float16", "is for GPUs")],
)
def test_precisions_that_cannot_be_had(precision, message):
    with pytest.raises(UsageError, match=message):
        optimize_for_inference(nn.Conv2d(3, 3, 1), precision=precision)


def test_a_processor_without_it_is_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(lower_precision, "processor_has_bfloat16", lambda: False)
    conv, x = nn.Conv2d(3, 3, 1), torch.ones(1, 3, 2, 2)
    with torch.no_grad():
        assert_rounded(optimize_for_inference(conv, precision="bfloat16")(x), conv(x))
    (record,) = caplog.records
    assert "no instructions for it" in record.message and "\n" not in record.message


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"amx_bf16": True}, True), ({"bf16": True}, True), ({"avx512_bf16": False}, False)],
)
def test_what_pytorch_knows_of_the_processor(known, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert lower_precision.processor_has_bfloat16() is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : fpu avx512_bf16", True), ("Features : bf16", True), ("flags : avx512f", False)],
)
def test_what_linux_knows_of_the_processor(flags, expected, monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(lower_precision, "_CPUINFO", file)
    assert lower_precision.processor_has_bfloat16() is False  # there is no such file
    file.write_text(f"processor : 0\n{flags}\n")
    assert lower_precision.processor_has_bfloat16() is expected


class _SumsOfProducts(TorchDispatchMode):
    """Notes which results of sums with products are contiguous."""

    def __init__(self):
        super().__init__()
        self.contiguous = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.baddbmm_.default:
            self.contiguous.append(args[0].is_contiguous())
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["nl", "dnl", "apnb", "afnb"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_sums_with_products_are_contiguous(name, memory):
    """In bfloat16 PyTorch adds to others a number at a time on a CPU: thousands of times slower."""
    block = randomised(build_context_block(name, 8)).eval()
    x = torch.randn(2, 8, 5, 7, dtype=torch.bfloat16).to(memory_format=memory)
    fast = optimize_for_inference(block, precision="bfloat16")
    with torch.no_grad(), _SumsOfProducts() as sums:
        fast(x)
    assert all(sums.contiguous)
    assert sums.contiguous or name in ("apnb", "afnb")  # which add to a new tensor


class _NormsOfLayers(TorchDispatchMode):
    """Notes the dtypes that each layer norm is given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator is torch.ops.aten.native_layer_norm.default:
            self.given.append({part.dtype for part in args if isinstance(part, torch.Tensor)})
        return operator(*args, **(kwargs or {}))


def test_layer_norms_are_given_the_precision_of_their_parameters():
    """On GPUs PyTorch refuses others, which it takes on a CPU."""
    block = {"name": "gc", "fusion": ["add", "mul"]}
    fast = optimize_for_inference(build_context_block(block, 8).eval(), precision="bfloat16")
    with torch.no_grad(), _NormsOfLayers() as norms:
        fast(torch.randn(2, 8, 5, 7))
    assert norms.given == [{torch.float32}] * 2
