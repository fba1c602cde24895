"""The parts of a model that the table lists, found from the names of its modules."""

from typing import NamedTuple

from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from dnl_d2.layers import ContextBlock

_PYRAMID = "backbone.fpn"


class Part(NamedTuple):
    """A line of the table.

    Attributes:
        name: such as ``backbone.res4`` or ``roi_heads.mask_head``.
        block: class of the context blocks inside that part, which have a line of their own; empty
            for all the rest of it.
    """

    name: str
    block: str = ""


class Parameters(NamedTuple):
    """Numbers of a part.

    Attributes:
        trainable: parameters that take gradients.
        frozen: parameters that do not.
        norm_buffers: weights and biases of frozen batch norms, which Detectron2 keeps as buffers.
            Published totals count them as parameters.
    """

    trainable: int = 0
    frozen: int = 0
    norm_buffers: int = 0

    @property
    def total(self) -> int:
        return sum(self)


class PartNames:
    """Tells the part of every module of a model."""

    def __init__(self, model: nn.Module):
        self._blocks = {
            name: type(module).__name__
            for name, module in model.named_modules()
            if isinstance(module, ContextBlock)
        }
        self._pyramid = hasattr(getattr(model, "backbone", None), "bottom_up")

    def part_of(self, module: str) -> Part:
        """The part that the module of that name, or what is below it, belongs to."""
        path = module.split(".")
        outer = (".".join(path[:n]) for n in range(1, len(path) + 1))
        block = next((self._blocks[name] for name in outer if name in self._blocks), "")
        return Part(self._name(path), block)

    def _name(self, path: list[str]) -> str:
        first, rest = path[0], path[1:]
        if first == "backbone" and self._pyramid:
            if rest[:1] != ["bottom_up"]:
                return _PYRAMID  # fpn_lateral2, fpn_output2, ..., top_block
            rest = rest[1:]
        if rest and (first in ("backbone", "roi_heads") or rest[0] == "auxiliary"):
            return f"{first}.{rest[0]}"
        return first or "(model)"

    def in_order(self, model: nn.Module) -> list[Part]:
        """All parts in the order in which they run, the context blocks of one right after it."""
        parts = dict.fromkeys(self.part_of(name) for name, _ in model.named_modules())
        names = list(dict.fromkeys(part.name for part in parts))
        # The backbone first; an FPN registers its own layers before the network under it.
        names.sort(key=lambda name: (not name.startswith("backbone"), name == _PYRAMID))
        return sorted(parts, key=lambda part: (names.index(part.name), part.block))


def count_parameters(model: nn.Module, names: PartNames) -> dict[Part, Parameters]:
    """Parameters by part; those that modules share count once, for the first of them."""
    counts: dict[Part, Parameters] = {}
    seen = set()
    for name, module in model.named_modules():
        found = [(p, 0 if p.requires_grad else 1) for p in module.parameters(recurse=False)]
        if isinstance(module, FrozenBatchNorm2d):
            found += [(module.weight, 2), (module.bias, 2)]
        sums = list(counts.get(names.part_of(name), Parameters()))
        for tensor, kind in found:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                sums[kind] += tensor.numel()
        if found:
            counts[names.part_of(name)] = Parameters(*sums)
    return counts
