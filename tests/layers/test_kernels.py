"""The ways to compute attention: equal to each other, exact in their gradients, lean in memory."""

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck
from torch.export import Dim, export
from torch.utils.flop_counter import FlopCounterMode

from dnl_d2.errors import UsageError
from dnl_d2.layers import NonLocalBlock, build_context_block, pairwise_attention
from dnl_d2.layers.functional import pairwise_weights
from dnl_d2.layers.kernels import softmax
from tests.layers.cases import Pool, randomize


@pytest.fixture(autouse=True)
def no_map_is_small(monkeypatch):
    """So that small tests reach what is for large maps."""
    for name in ("_HELD_LOGITS", "_HELD_LOGITS_TRAINING"):
        monkeypatch.setattr(softmax, name, 0)


PAIRWISE_FORMS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SIMILARITIES = ("softmax", "dot", "relu_sum")


def operands(queries, keys, width, value_width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(queries + keys)
    shapes = ((queries, width), (keys, width), (keys, value_width))
    return [torch.randn(2, *s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def some_mask(keys):
    """Leaves out every third key of the first sample, and all of the second."""
    mask = torch.zeros(2, keys, dtype=torch.bool)
    mask[0, ::3] = mask[1] = True
    return mask


def by_the_map(query, key, value, **options):
    return pairwise_weights(query, key, **options) @ value


def with_gradients(tensors, attend=pairwise_attention, **options):
    out = attend(*tensors, **options)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, *torch.autograd.grad((out * weight).sum(), tensors)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (300, 301), (5, 1200), (1100, 40)])
def test_attention_is_the_map_times_the_values(sizes, similarity, masked):
    width = 1 if similarity == "relu_sum" else 6
    tensors = operands(*sizes, width, 4)
    options = {
        "similarity": similarity,
        "scale": 0.6 if similarity != "relu_sum" else 1.0,
        "key_padding_mask": some_mask(sizes[1]) if masked else None,
    }
    found = with_gradients(tensors, **options)
    expected = with_gradients(tensors, by_the_map, **options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("backend", "value_width"), [("fused", 6), ("chunked", 6), ("chunked", 9), ("auto", 6)]
)
@pytest.mark.parametrize("tile", [None, (64, 100)])
def test_backends_are_equal(backend, value_width, masked, tile, monkeypatch):
    if tile:  # several tiles on both axes, the last ones partial
        monkeypatch.setattr(softmax, "_CPU_TILE", tile)
        monkeypatch.setattr(softmax, "_CPU_LOGITS", 50 * 333)
    tensors = operands(270, 333, 6, value_width)
    mask = some_mask(333) if masked else None
    shared = {"scale": 2.0, "key_padding_mask": mask}
    found = with_gradients(tensors, backend=backend, **shared)
    expected = with_gradients(tensors, backend="plain", **shared)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    again = with_gradients(tensors, backend=backend, **shared)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("value_width", [3, 5])
def test_chunked_gradients_are_the_derivatives(value_width, masked, monkeypatch):
    monkeypatch.setattr(softmax, "_CPU_TILE", (2, 3))
    options = {"scale": 0.8, "key_padding_mask": some_mask(7) if masked else None}
    attend = partial(pairwise_attention, backend="chunked", **options)
    assert gradcheck(attend, operands(5, 7, 3, value_width))


@pytest.mark.parametrize("similarity", ["dot", "relu_sum"])
def test_other_gradients_are_the_derivatives(similarity):
    tensors = operands(6, 5, 1 if similarity == "relu_sum" else 3, 4)
    attend = partial(pairwise_attention, similarity=similarity, key_padding_mask=some_mask(5))
    assert gradcheck(attend, tensors)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_relu_sums_do_not_cancel(offset):
    """In fp32, a_i + b_j small beside a and b, and many equal b."""
    generator = torch.Generator().manual_seed(0)
    a, b, v = (torch.randn(1, 3000, d, generator=generator) for d in (1, 1, 4))
    b = (b * 4).round() / 4
    a, b = a + offset, b - offset
    found = pairwise_attention(a, b, v, similarity="relu_sum")
    expected = by_the_map(a.double(), b.double(), v.double(), similarity="relu_sum").float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("keys", "value_width", "training", "used"),
    [
        (400, 4, False, "plain"),
        (600, 4, False, "fused"),
        (600, 6, False, "chunked"),
        (600, 4, True, "plain"),
        (8000, 4, True, "chunked"),
        (3, 4, True, "plain"),
    ],
)
def test_auto_holds_small_maps_only(keys, value_width, training, used, monkeypatch):
    monkeypatch.undo()
    shapes = ((600, 4), (keys, 4), (keys, value_width))
    tensors = [torch.randn(1, *shape, requires_grad=training) for shape in shapes]
    assert softmax.fastest(*tensors, torch.float32) == used


@pytest.mark.parametrize(
    ("dtype", "positions", "training", "used"),
    [
        (torch.bfloat16, 8, True, "fused"),
        (torch.float16, 9409, False, "fused"),
        (torch.float32, 500, False, "plain"),
        (torch.float32, 8192, False, "fused"),
        (torch.float32, 8192, True, "plain"),
        (torch.float32, 32768, True, "fused"),
    ],
)
def test_auto_on_a_gpu_with_8_gib_free(dtype, positions, training, used, monkeypatch):
    """A map of 8192 positions is 256 MiB, of 32768 it is 4 GiB."""
    monkeypatch.undo()
    monkeypatch.setattr(softmax, "_free_memory", lambda device: 8 * 2**30)
    with FakeTensorMode():
        tensor = torch.empty(1, positions, 256, dtype=dtype, device="cuda", requires_grad=training)
        assert softmax.fastest(tensor, tensor, tensor, dtype) == used


def test_bfloat16_on_a_gpu_without_it_holds_no_map(monkeypatch):
    """scaled_dot_product_attention would, and not say so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7)
    )
    with FakeTensorMode():
        tensor = torch.empty(1, 8192, 64, device="cuda", dtype=torch.bfloat16)
        assert softmax.fastest(tensor, tensor, tensor, torch.bfloat16) == "chunked"
        assert softmax.fastest(tensor, tensor, tensor, torch.float16) == "fused"


def test_free_memory_counts_what_pytorch_keeps(monkeypatch):
    figures = {"mem_get_info": (100, 900), "memory_reserved": 50, "memory_allocated": 20}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, figure=figure: figure)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert softmax._free_memory(torch.device("cuda", 0)) == 130


def test_strided_tokens_do_not_bring_the_map_back():
    """The layout of a map in memory decides for PyTorch's own function, and must not for ours."""
    query = torch.randn(1, 8, 300).transpose(1, 2)
    with torch.profiler.profile() as profile, torch.no_grad():
        pairwise_attention(query, query, query, backend="fused")
    names = {event.key for event in profile.key_averages()}
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
    assert "aten::_scaled_dot_product_attention_math" not in names


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 5, 8), (2, 9, 8), (2, 8, 8)), {}, r"softmax attention takes .*\(2, 8, 8\)"),
        (((2, 5, 8), (1, 9, 8), (1, 9, 8)), {}, "softmax attention takes"),
        (((2, 5, 8), (2, 9, 7), (2, 9, 8)), {"backend": "chunked"}, "softmax attention takes"),
        (((5, 8), (9, 8), (9, 8)), {}, "softmax attention takes"),
        (((2, 5, 2), (2, 9, 2), (2, 9, 8)), {"similarity": "relu_sum"}, r"\(N, Lq, 1\)"),
        (((2, 5, 8), (2, 9, 8), (2, 9, 8)), {"similarity": "cosine"}, "unknown similarity"),
        (((2, 5, 8),) * 3, {"key_padding_mask": torch.zeros(2, 5)}, "key_padding_mask must be"),
    ],
)
def test_operands_that_do_not_belong_together(shapes, options, message):
    with pytest.raises(UsageError, match=message):
        pairwise_attention(*(torch.ones(shape) for shape in shapes), **options)


def test_what_cannot_be_fused_is_refused():
    tensors = operands(300, 300, 4, 8, torch.float32)
    with pytest.raises(UsageError, match=r"'fused': PyTorch has no such kernel for torch\.float32"):
        pairwise_attention(*tensors, backend="fused")
    with pytest.raises(UsageError, match="unknown attention_backend 'flash'; use one of auto, pl"):
        pairwise_attention(*tensors, backend="flash")
    with pytest.raises(UsageError, match="unknown attention_backend 'flash'"):
        NonLocalBlock(8, attention_backend="flash")
    with pytest.raises(UsageError, match="unknown attention_dtype 'int8'; use one of float16"):
        NonLocalBlock(8, attention_dtype="int8")


@pytest.mark.parametrize("name", ["nl", "dnl"])
def test_blocks_pass_their_backend_on(name, monkeypatch):
    seen = []
    real = softmax.softmax_attention

    def spy(*args, backend, **options):
        seen.append((backend, args[0].dtype))
        return real(*args, backend=backend, **options)

    monkeypatch.setattr("dnl_d2.layers.functional.softmax_attention", spy)
    x = torch.randn(1, 8, 20, 20)
    options = {"attention_backend": "fused", "attention_dtype": "bfloat16"}
    build_context_block({"name": name, **options}, 8)(x)
    assert seen == [("fused", torch.bfloat16)]


@pytest.mark.parametrize("backend", ["fused", "auto", "plain", "chunked"])
@pytest.mark.parametrize("held", [0, 2**30])
def test_half_precision_operands_have_fp32_logits(backend, held, monkeypatch):
    """Errors are those of rounding operands and result, not of rounding logits near 60."""
    monkeypatch.setattr(softmax, "_HELD_LOGITS", held)
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 400, 64, generator=generator) for _ in range(3))
    exact = pairwise_attention(query, key, value, scale=1.5)
    for dtype, bound in ((torch.bfloat16, 0.2), (torch.float16, 0.03)):
        found = pairwise_attention(query, key, value, scale=1.5, backend=backend, dtype=dtype)
        if backend in ("plain", "chunked") or (backend == "auto" and held):
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
            continue
        rounded = (t.to(dtype).float() for t in (query, key, value))
        same_operands = pairwise_attention(*rounded, scale=1.5)
        error = (found - same_operands).abs().max() / exact.abs().max()
        assert 0 < error < 4 * torch.finfo(dtype).eps
        assert (found - exact).norm() / exact.norm() < bound


@pytest.mark.parametrize(
    "spec",
    [
        *("dnl", "snl", "gc", "apnb", "afnb", "pool"),
        *({"name": "nl", "mode": m} for m in PAIRWISE_FORMS),
    ],
    ids=str,
)
def test_one_export_serves_every_size(spec):
    block = Pool() if spec == "pool" else randomize(build_context_block(spec, 8), 0).eval()
    sizes = {0: Dim("batch"), 2: Dim("height", min=2, max=512), 3: Dim("width", min=2, max=512)}
    with torch.no_grad():
        exported = export(block, (torch.randn(2, 8, 24, 18),), dynamic_shapes=(sizes,))
        for batch, *size in ((2, 24, 18), (1, 5, 2), (3, 33, 70), (2, 97, 33), (1, 13, 130)):
            x = torch.randn(batch, 8, *size)
            torch.testing.assert_close(exported.module()(x), block(x))


def counted_flops(backend, *, training):
    block = build_context_block({"name": "dnl", "attention_backend": backend}, 12)
    x = torch.randn(2, 12, 5, 7, requires_grad=training)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        out = block(x)
        if training:
            out.sum().backward()
    return counter.get_total_flops()


def test_pytorch_counts_the_operations_of_chunked_attention():
    assert counted_flops("chunked", training=False) == counted_flops("plain", training=False)
    again = 2 * 2 * 35 * 35 * 6  # Q K^T, computed again for the gradients
    held = counted_flops("plain", training=True)
    assert counted_flops("chunked", training=True) == held + again


_PEAKS = """
import os, sys, torch
from dnl_d2.layers import build_context_block
torch.set_num_threads(1)
def status(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) / 1024
for words in sys.argv[1:]:
    if os.fork():  # each block in a process of its own, all of which have loaded PyTorch once
        assert os.wait()[1] == 0
        continue
    name, *mode = words.split()
    block = build_context_block({"name": name, "mode": mode[0]} if mode else name, 32)
    for size in (8, 96):
        x = torch.randn(1, 32, size, size, requires_grad=True)
        before = status("VmRSS")
        block(x).sum().backward()
    print(status("VmHWM") - before, flush=True)
    os._exit(0)
"""
MAPPED = [*(f"nl {form}" for form in PAIRWISE_FORMS), "dnl"]


@pytest.fixture(scope="module")
def peaks():
    """MiB that blocks take for maps of 96x96 positions."""
    command = [sys.executable, "-c", _PEAKS, *MAPPED]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(MAPPED, map(float, run.stdout.split()), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("block", MAPPED)
def test_no_map_in_memory(block, peaks):
    """A map of 96x96 positions is 324 MiB; the rest is for libraries that load on first use."""
    assert peaks[block] < 200
