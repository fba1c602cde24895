"""torch.compile takes every block, with every preset and form, as one graph.

PyTorch's versions differ most here; ``pytest tests/layers/test_compile.py`` asks one of them.
"""

import pytest
import torch

from dnl_d2.layers import CONTEXT_BLOCKS, build_context_block, pyramid
from dnl_d2.layers.disentangled import PRESETS
from dnl_d2.layers.kernels import softmax
from tests.layers.cases import Pool, randomize

# What differs in its operators, whose gradients AOTAutograd puts into a graph as well.
KERNELS = [
    *({"name": name} for name in CONTEXT_BLOCKS),
    *({"name": "nl", "mode": mode} for mode in ("gaussian", "dot_product", "concatenation")),
    *({"name": "nl", "attention_backend": way} for way in ("plain", "fused", "chunked")),
]
SPECS = [
    *KERNELS,
    *({"name": "dnl", "preset": preset} for preset in PRESETS),
    {"name": "dnl", "preset": "paper-seg", "project": True, "norm": "BN", "sub_sample": True},
    {"name": "dnl", "whitening": "layer", "unary": False},
    {"name": "nl", "sub_sample": True, "norm": "GN"},
    {"name": "gc", "pooling": "avg", "fusion": ("add", "mul")},
    {"name": "snl", "norm": "BN", "zero_init": False},
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Small tests compile what is for large maps, and no graph of an earlier test."""
    for name in ("_HELD_LOGITS", "_HELD_LOGITS_TRAINING"):
        monkeypatch.setattr(softmax, name, 0)
    monkeypatch.setattr(pyramid, "_LARGEST_WHOLE", 0)
    monkeypatch.setattr(pyramid, "_KEPT", {})
    torch._dynamo.reset()


def build(spec):
    """At random, in evaluation mode: a fresh block is an identity."""
    return randomize(build_context_block(spec, 32), 0).eval()


def inputs(height, width, count=2):
    torch.manual_seed(height)
    return torch.randn(count, 32, height, width, requires_grad=True)


def assert_equal(compiled, model, x, *args, tolerance=1e-4):
    """Results and gradients of the compiled model and of the model itself."""
    outputs = [function(x, *args) for function in (compiled, model)]
    torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance / 10)
    wanted = [x, *model.parameters()]
    gradients = [torch.autograd.grad(out.float().square().sum(), wanted) for out in outputs]
    for found, expected in zip(*gradients, strict=True):
        largest = expected.abs().max().item()
        torch.testing.assert_close(
            found, expected, rtol=tolerance, atol=tolerance * (largest / 10 + 0.01)
        )


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_gradients_of_a_graph(spec):
    block = build(spec)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert_equal(compiled, block, inputs(9, 10))


@pytest.mark.parametrize("name", CONTEXT_BLOCKS)
def test_with_a_mask(name):
    block = build(name)
    mask = torch.zeros(2, 9, 10, dtype=torch.bool)
    mask[0, 5:] = True
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    assert_equal(compiled, block, inputs(9, 10), mask)


@pytest.mark.parametrize("name", CONTEXT_BLOCKS)
def test_under_autocast(name):
    block, x = build(name), inputs(9, 10)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(compiled, block, x, tolerance=0.05)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: "-".join(map(str, spec.values())))
def test_one_graph_serves_every_size(spec):
    """Odd sizes: up to PyTorch 2.11 a max-pool (sub_sample) is compiled once more for even ones."""
    block = build(spec).train()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="eager")
    assert_equal(compiled, block, inputs(9, 11))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_equal(compiled, block, inputs(9, 11, count=3))
        assert_equal(compiled, block, inputs(7, 15))


@pytest.mark.skipif(torch.__version__ < "2.8", reason="sizes are asked for before PyTorch 2.8")
@pytest.mark.parametrize("name", ["nl", "dnl"])
def test_one_graph_serves_small_and_large_maps(name, monkeypatch):
    monkeypatch.setattr(softmax, "_HELD_LOGITS_TRAINING", 2 * 99**2)
    block = build(name)
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="eager")
    compiled(inputs(9, 11))
    x = inputs(10, 13)
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(compiled(x), block(x), rtol=1e-2, atol=1e-3)


def test_a_compiled_block_is_not_taken_for_an_exported_one():
    """What runs elsewhere has PyTorch's kernel, which training on a CPU does not choose."""
    found = []

    def graph(module, _):
        found.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    torch.compile(build("nl"), fullgraph=True, backend=graph)(inputs(9, 10))
    assert any("chunked_attention" in name for name in found)
    assert not any("scaled_dot_product" in name for name in found)


def test_pyramids_of_every_size():
    model = Pool()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for size in ((9, 11), (5, 18)):
        assert_equal(compiled, model.train(), inputs(*size))
