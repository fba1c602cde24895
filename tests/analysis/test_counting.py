"""Counts of single operations and of every block, against formulas written by hand."""

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import ActivationCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dnl_d2.analysis import Count, OperationCounter
from dnl_d2.layers import build_context_block
from dnl_d2.modeling.backbone import build_context_resnet
from dnl_d2.modeling.backbone.residual import ContextBottleneckBlock


def meta(*shape):
    return torch.zeros(*shape, device="meta")


def count(function, *inputs):
    module = function if isinstance(function, nn.Module) else nn.Identity()
    with torch.no_grad(), OperationCounter(module) as counter:
        function(*inputs)
    return counter.total


OPERATIONS = {
    # 2 images, 4 outputs of 6 x 5 positions, 3 inputs under 3 x 3 taps
    "conv": (
        lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1, device="meta")(meta(2, 3, 12, 10)),
        (2 * 4 * 6 * 5 * 3 * 9, 2 * 4 * 6 * 5),
    ),
    "grouped": (
        lambda: nn.Conv2d(8, 4, 3, padding=1, groups=2, device="meta")(meta(1, 8, 7, 7)),
        (4 * 49 * 4 * 9, 4 * 49),
    ),
    # Every input meets 2 x 2 taps for each of 5 outputs.
    "transposed": (
        lambda: nn.ConvTranspose2d(3, 5, 2, stride=2, device="meta")(meta(2, 3, 4, 6)),
        (2 * 3 * 24 * 5 * 4, 2 * 5 * 8 * 12),
    ),
    "grouped transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, device="meta")(meta(1, 4, 5, 5)),
        (4 * 25 * 3 * 9, 6 * 49),
    ),
    "conv1d": (lambda: F.conv1d(meta(2, 3, 9), meta(4, 3, 3)), (2 * 4 * 7 * 9, 2 * 4 * 7)),
    "linear": (lambda: nn.Linear(7, 3, device="meta")(meta(5, 7)), (5 * 3 * 7, 15)),
    "linear of tokens": (
        lambda: F.linear(meta(2, 5, 7), meta(3, 7), meta(3)),
        (2 * 5 * 3 * 7, 30),
    ),
    "matmul": (lambda: meta(3, 7) @ meta(2, 7, 5), (2 * 3 * 7 * 5, 30)),
    "vector": (lambda: meta(3, 7) @ meta(7), (21, 3)),
    "dot": (lambda: meta(7) @ meta(7), (7, 1)),
    "einsum": (lambda: torch.einsum("nqc,nkc->nqk", meta(2, 3, 7), meta(2, 5, 7)), (210, 30)),
    "baddbmm_": (
        lambda: meta(2, 3, 5).baddbmm_(meta(2, 3, 7), meta(2, 7, 5)),
        (2 * 3 * 7 * 5, 30),
    ),
    "addmm": (lambda: torch.addmm(meta(5), meta(3, 7), meta(7, 5)), (105, 15)),
    # Two products over 6 queries and 9 keys, for 2 x 4 heads; the map and the result.
    "sdpa": (
        lambda: F.scaled_dot_product_attention(
            torch.zeros(2, 4, 6, 8), torch.zeros(2, 4, 9, 8), torch.zeros(2, 4, 9, 8)
        ),
        (8 * 6 * 9 * (8 + 8), 8 * 6 * (9 + 8)),
    ),
    "chunked": (
        lambda: torch.ops.dnl_d2.chunked_attention(
            meta(2, 6, 8), meta(2, 9, 8), meta(2, 9, 5), None, 1.0
        ),
        (2 * 6 * 9 * (8 + 5), 2 * 6 * (9 + 5)),
    ),
    "no products": (lambda: F.max_pool2d(meta(1, 3, 8, 8), 2).softmax(1).sum(), (0, 0)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    operation, expected = OPERATIONS[name]
    assert count(operation) == Count(*expected)


C, H, W = 32, 6, 10
L, HALF, P = H * W, C // 2, 1 + 9 + 36 + 64
PROJECTIONS = 3 * L * C * HALF + L * HALF * C  # query, key, value and back
MAP = 2 * L * L * HALF

BLOCKS = {
    "nl": ({"name": "nl"}, PROJECTIONS + MAP),
    "gaussian": ({"name": "nl", "mode": "gaussian"}, 2 * L * C * HALF + L * L * (C + HALF)),
    # (K^T V) first: never a map.
    "dot": ({"name": "nl", "mode": "dot_product"}, PROJECTIONS + 2 * L * HALF * HALF),
    "sub_sample": ({"name": "nl", "sub_sample": True}, PROJECTIONS + MAP // 4),
    "snl": ({"name": "snl"}, 2 * L * C + C * C),
    "gc": ({"name": "gc", "ratio": 0.25}, 2 * L * C + 2 * C * C // 4),
    "gc average": ({"name": "gc", "ratio": 0.25, "pooling": "avg"}, 2 * C * C // 4),
    # The unary map and its sum of values, whose projection is that of a single position.
    "dnl": ({"name": "dnl"}, PROJECTIONS + MAP + L * C + L * HALF + HALF * C),
    "dnl without unary": ({"name": "dnl", "unary": False}, PROJECTIONS + MAP),
    "apnb": (
        {"name": "apnb"},
        L * C * HALF  # key and query, shared
        + (HALF + C) * P * L  # pooled keys and inputs of a small map
        + L * P * HALF  # the map
        + P * (2 * C * HALF + C * C)  # values, W_o, W_c
        + L * P * C  # times the map
        + L * C * C,  # W_x; the constant W_c b_o is in the values
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name):
    spec, expected = BLOCKS[name]
    block = build_context_block(spec, C).eval()
    assert count(block, torch.zeros(1, C, H, W)).multiply_adds == expected


@pytest.mark.parametrize("backend", ["plain", "fused", "chunked"])
def test_ways_to_compute_attention_count_alike(backend):
    block = build_context_block({"name": "nl", "attention_backend": backend}, C)
    found = count(block, torch.zeros(2, C, H, W))
    assert found == Count(2 * (PROJECTIONS + MAP), 2 * (4 * L * HALF + L * C + L * L))


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution(modulated):
    def block(**deform):
        made = ContextBottleneckBlock(8, 8, bottleneck_channels=4, num_groups=2, **deform)
        return count(made.to("meta").eval(), meta(1, 8, H, W))

    offsets = (3 if modulated else 2) * 9
    plain, deformed = block(), block(deform=True, deform_modulated=modulated)
    assert deformed.multiply_adds - plain.multiply_adds == L * 4 * 9 * offsets
    assert deformed.activations - plain.activations == L * offsets


def test_resnet_as_others_count_it():
    options = dict(depth=50, res2_out_channels=16, num_groups=2, width_per_group=4, norm="BN")
    resnet = build_context_resnet(**options, out_features=["res5"]).eval()
    image = torch.zeros(1, 3, 64, 96)
    found = count(resnet, image)
    with torch.no_grad(), FlopCounterMode(display=False) as reference:
        resnet(image)
    assert 2 * found.multiply_adds == reference.get_total_flops()
    activations = ActivationCountAnalysis(resnet, image).unsupported_ops_warnings(False)
    assert found.activations == activations.total()


def test_each_operation_counts_for_the_module_it_is_in():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.outer = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.shared = self.outer[0]

        def forward(self, x):
            return self.shared(self.outer(x)) @ x.t()

    net = Net()
    with torch.no_grad(), OperationCounter(net) as counter:
        net(torch.zeros(2, 4))
    assert counter.counts == {
        ("outer.0", "aten::addmm"): Count(2 * 2 * 16, 2 * 8),
        ("", "aten::mm"): Count(16, 4),
    }
    with OperationCounter(net):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_operators_without_formula_are_named():
    @torch.library.custom_op("dnl_d2_tests::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    with OperationCounter(nn.Identity()) as counter:
        twice(torch.zeros(3))
    assert set(counter.unknown) == {"dnl_d2_tests::twice"}
