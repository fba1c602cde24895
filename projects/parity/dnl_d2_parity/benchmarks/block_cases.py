"""What a benchmark of blocks can be asked for: cases, presets with aims, and settings."""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from dnl_d2.errors import UsageError
from dnl_d2_parity.benchmarks.block_costs import PRODUCTS
from dnl_d2_parity.benchmarks.measuring import cores

PASSES = ("forward", "training")
SIDES = ("ours", "reference")


@dataclass(frozen=True)
class Settings:
    """What all cases of one call share."""

    device: str = "cpu"
    dtype: str = "float32"
    channels: int = 512
    inter_channels: int = 256
    batch: int = 1
    runs: int = 5
    threads: int = field(default_factory=cores)
    backend: str = "auto"
    compile: bool = False

    @property
    def reduction(self) -> int:
        """C / C', which is whole."""
        return self.channels // self.inter_channels


@dataclass(frozen=True)
class Case:
    """A line of the table; the bars are the smallest ratios reference / ours to reach."""

    block: str
    phase: str
    height: int
    width: int
    time_bar: float | None = None
    memory_bar: float | None = None

    @property
    def size(self) -> str:
        return f"{self.height}x{self.width}"

    @property
    def training(self) -> bool:
        return self.phase == "training"

    def __str__(self) -> str:
        return f"{self.block} {self.phase} {self.size}"


_SOFTMAX = ("nl", "dnl")
# Name -> settings, and lines (blocks, passes, sizes, time bar, memory bar).
PRESETS = {
    "bars": (
        {},
        [
            (_SOFTMAX, ("forward",), ("64x128",), 1.5, 6),
            (_SOFTMAX, ("training",), ("64x128", "97x97"), 1.3, 4),
            (_SOFTMAX, ("forward",), ("128x256",), 1.3, 28),
            (("dot",), ("forward",), ("64x128",), 5, 6),
            (("dot",), ("forward",), ("128x256",), 15, 20),
            (("concatenation",), ("forward",), ("32x32",), 50, 50),
            (("concatenation",), ("forward",), ("128x256",), None, None),
            (("apnb",), PASSES, ("64x128", "128x256"), 1.2, 1.2),
        ],
    ),
}


def cases(lines: Sequence[tuple]) -> Iterator[Case]:
    """The cases of lines as in :data:`PRESETS`; None stands for the default.

    Raises:
        UsageError: a block, pass or size is none.
    """
    for blocks, passes, sizes, *bars in lines:
        for block, phase, size in itertools.product(
            blocks, passes or ("forward",), sizes or ("64x128",)
        ):
            known(block, PRODUCTS, "--blocks")
            known(phase, PASSES, "--passes")
            yield Case(block, phase, *_size(size), *bars)


def known(name: str, names: Collection[str], option: str) -> str:
    """The name, if it is one of ``names``; else a :class:`UsageError` that lists them."""
    if name not in names:
        raise UsageError(f"{option}: unknown {name!r}; use one of {', '.join(names)}")
    return name


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UsageError(f"--sizes: {text!r} is no size; write it as HxW, such as 64x128")
    return int(found[1]), int(found[2])
