"""Which options and map sizes every block is tested with; a new block needs an entry in CASES."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dnl_d2.layers import CONTEXT_BLOCKS, ContextBlock, build_context_block, pyramid_pool
from tests.reference import ORACLES, Reference

CHANNELS = 6
SHAPES = [
    (1, CHANNELS, 1),
    (2, CHANNELS, 7),
    (2, CHANNELS, 1, 1),
    (1, CHANNELS, 1, 5),
    (2, CHANNELS, 5, 4),
    (1, CHANNELS, 3, 1, 2),
    (2, CHANNELS, 2, 3, 3),
]
FEW_SHAPES = [(2, CHANNELS, 7), (1, CHANNELS, 1, 5), (2, CHANNELS, 2, 3, 3)]
TRAIN_SHAPES = [(2, CHANNELS, 7), (1, CHANNELS, 5, 4), (2, CHANNELS, 2, 3, 3)]


def gn2(channels: int) -> nn.Module:
    """A norm given as a callable, as LazyConfig does."""
    return nn.GroupNorm(2, channels)


def product(**choices: list) -> list[dict[str, Any]]:
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


CASES: dict[str, list[dict[str, Any]]] = {
    "nl": [
        *product(
            mode=["gaussian", "embedded_gaussian", "dot_product", "concatenation"],
            sub_sample=[False, True],
        ),
        *product(use_scale=[False], sub_sample=[False, True]),
        *product(norm=["BN", gn2], reduction=[3]),
        {"inter_channels": 1, "zero_init": False},
    ],
    "snl": [*product(norm=[None, "BN"]), {"zero_init": False}],
    "gc": [
        *product(
            pooling=["att", "avg"],
            fusion=[("add",), ("mul",), ("add", "mul")],
            ratio=[1 / 2, 1 / 3],
        ),
        {"zero_init": False, "ratio": 1 / 2},
    ],
    "dnl": [
        *product(preset=["mmseg"], norm=[None, "BN", gn2], use_scale=[True, False]),
        *product(preset=["paper-seg", "paper-det"], project=[None, True, False], norm=[None, "BN"]),
        *product(preset=["mmseg", "paper-seg", "paper-det"], use_scale=[False], temperature=[0.3]),
        {"preset": "paper-det", "inter_channels": 5, "project": True},
        *product(preset=["paddleseg"], norm=[None, "BN"]),
        *product(whitening=["layer", "none"], preset=["mmseg", "paper-seg"]),
        *product(unary=[False], preset=["mmseg", "paper-seg"], sub_sample=[False, True]),
        *product(sub_sample=[True], whitening=["channel", "layer", "none"]),
        {"preset": "paper-seg", "project": True, "norm": "BN", "unary": False, "sub_sample": True},
    ],
    "apnb": [
        *product(pool_scales=[(1,), (2, 3)], norm=["BN", None]),
        {"reduction": 3},
        {"norm": gn2, "inter_channels": 4, "pool_scales": (1, 3)},
    ],
    "afnb": [
        *product(pool_scales=[(1,), (2, 3)], norm=["BN", None], low_channels=[None, 4]),
        {"norm": gn2, "inter_channels": 4, "pool_scales": (1, 3)},
    ],
}


@dataclass
class Case:
    """A block by name with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [self.name]
        for key, value in self.options.items():
            value = getattr(value, "__name__", value)
            value = "+".join(map(str, value)) if isinstance(value, tuple) else value
            parts.append(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}")
        return ",".join(parts)

    def build(self, seed: int = 0, channels: int = CHANNELS) -> ContextBlock:
        """The block as constructed, in float64."""
        torch.manual_seed(seed)
        return build_context_block({"name": self.name, **self.options}, channels).double()

    def random(self, seed: int = 0, channels: int = CHANNELS) -> ContextBlock:
        """The block in eval mode, all parameters and norm statistics drawn at random."""
        return randomize(self.build(seed, channels), seed).eval()

    def inputs(self, shape: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
        """The maps to call it with; afnb's shallow map has another size than the deep one."""
        x = random_map(shape, seed)
        if self.name != "afnb":
            return {"x": x}
        size = tuple(s + 1 if i % 2 == 0 else 2 * s for i, s in enumerate(shape[2:]))
        low_channels = self.options.get("low_channels") or shape[1]
        return {"x": x, "low": random_map((shape[0], low_channels, *size), seed + 1)}

    def oracle(
        self, block: ContextBlock, inputs: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Reference:
        params = {k: v.double().numpy().copy() for k, v in block.state_dict().items()}
        arrays = {k: v.detach().double().numpy() for k, v in inputs.items()}
        array = None if mask is None else mask.numpy()
        return ORACLES[self.name](
            params, self.options, arrays.pop("x"), array, block.training, **arrays
        )


def key_map(inputs: Mapping[str, Tensor]) -> Tensor:
    """The map that keys, and so the mask, belong to."""
    return inputs.get("low", inputs["x"])


def random_map(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def random_mask(inputs: Mapping[str, Tensor], *, full_sample: bool, seed: int = 0) -> Tensor:
    """A third of all positions; the last sample wholly where ``full_sample``, else none wholly."""
    like = key_map(inputs)
    size = (like.shape[0], *like.shape[2:])
    mask = torch.from_numpy(np.random.default_rng(seed).random(size) < 0.35)
    flat = mask.flatten(1)
    flat[:, 0] = flat.shape[1] > 2
    flat[:, -1] = False
    if full_sample:
        mask[-1] = True
    return mask


@torch.no_grad()
def randomize(block: nn.Module, seed: int) -> nn.Module:
    """Draws every parameter and statistic, zero-initialised ones and gamma included."""
    rng = np.random.default_rng(seed + 100)
    for name, tensor in block.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, tuple(tensor.shape))
        else:
            values = 0.5 * rng.standard_normal(tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(np.asarray(values)))
    return block


class Pool(nn.Module):
    """The default pyramid as a module, to compile and export."""

    def forward(self, x: Tensor) -> Tensor:
        return pyramid_pool(x, (1, 3, 6, 8))[0]


def registered() -> list[Any]:
    """One case per registered block and option set; at least the default options."""
    cases = [Case(name, options) for name in CONTEXT_BLOCKS for options in CASES.get(name, [{}])]
    return [pytest.param(case, id=str(case)) for case in cases]


SMALL: dict[str, dict[str, Any]] = {
    "apnb": {"pool_scales": (1, 2)},
    "afnb": {"pool_scales": (1, 2), "low_channels": 4},
}


def one_each() -> list[Any]:
    """The default options of every registered block, pyramids small."""
    return [pytest.param(Case(name, SMALL.get(name, {})), id=name) for name in CONTEXT_BLOCKS]


def without_grid(*, one_cell: bool = False) -> list[Any]:
    """Cases that know no places; with ``one_cell`` also pyramids of one cell and 2x pools."""

    def fits(case: Case) -> bool:
        if case.name in ("apnb", "afnb"):
            return one_cell and case.options.get("pool_scales") == (1,)
        return one_cell or not case.options.get("sub_sample")

    return [param for param in registered() if fits(param.values[0])]


def without_group_norm(params: list[Any]) -> list[Any]:
    """Group norm takes its statistics from all positions of a sample.

    A norm acts on the map as in the rest of the network: masks do not reach it.
    """
    return [param for param in params if param.values[0].options.get("norm") is not gn2]


def with_norm() -> list[Any]:
    """Cases whose block holds a norm with batch statistics."""
    return [param for param in registered() if batch_norms(param.values[0].build())]


def batch_norms(block: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
