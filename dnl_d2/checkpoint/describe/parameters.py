"""What the names and shapes of parameters tell about a model."""

from collections.abc import Mapping
from typing import Any

from dnl_d2.checkpoint.keymap import State
from dnl_d2.errors import UsageError

# YAML keys and their values.
Settings = dict[str, Any]


class Keys:
    """Questions about the names and shapes of a state dict."""

    def __init__(self, state: State):
        self.shapes: Mapping[str, tuple[int, ...]] = {k: tuple(v.shape) for k, v in state.items()}

    def has(self, start: str) -> bool:
        return any(key.startswith(start) for key in self.shapes)

    def count(self, start: str) -> int:
        """How many of ``start0...``, ``start1...`` there are, the largest number counting."""
        after = [key.removeprefix(start) for key in self.shapes if key.startswith(start)]
        numbers = [rest.partition(".")[0] for rest in after]
        return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1

    def out(self, key: str) -> int:
        return self._shape(key)[0]

    def into(self, key: str) -> int:
        return self._shape(key)[1]

    def _shape(self, key: str) -> tuple[int, ...]:
        if key not in self.shapes:
            raise UsageError(f"the weights lack {key!r}")
        shape = self.shapes[key]
        if len(shape) < 2 or 0 in shape:
            raise UsageError(f"{key!r} has the shape {list(shape)}, which is no layer's weight")
        return shape

    def norm(self, start: str) -> str:
        """The norm beside a convolution; frozen statistics and synchronised ones look alike."""
        if self.has(f"{start}.norm.running_mean"):
            return "BN"
        return "GN" if self.has(f"{start}.norm.weight") else ""
