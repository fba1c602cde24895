"""What is known about a public code base whose checkpoints can be read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dnl_d2.checkpoint.keymap import Rule, State, matching


@dataclass(frozen=True)
class InputFormat:
    """How images were fed to the published models.

    Args:
        channel_order: ``RGB`` or ``BGR``.
        mean, std: by channel, in that order, on the scale of 0 to 255.
    """

    channel_order: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order {self.channel_order!r} is neither RGB nor BGR")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: three numbers each, std > 0")


IMAGENET_RGB = InputFormat("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE_BGR = InputFormat("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Source:
    """A public code base.

    Args:
        name: what ``--source`` calls it.
        title: what it is, for messages and the documentation.
        signature: templates; a file is of this source if each of them matches some key, after
            ``prepare``.
        rules: the key map of one file, chosen by its keys (and shapes), read in both directions.
        input_format: how its models were fed; None if that differs from model to model.
        prepare: pure function from the file's own dict to what ``rules`` speaks about, such as
            one that takes ``module.`` off; by default nothing.
        settings: YAML keys of the published models that no parameter shows, such as
            ``{"MODEL.RESNETS.SHORTCUT": "avg_pool"}``.
        told: what a file holds beside its weights, and the YAML keys that its parameters show ->
            more keys, of that file.
    """

    name: str
    title: str
    signature: Sequence[str]
    rules: Callable[[Mapping[str, Tensor]], list[Rule]]
    input_format: InputFormat | None = IMAGENET_RGB
    prepare: Callable[[State], dict[str, Tensor]] = dict
    settings: Mapping[str, Any] = field(default_factory=dict)
    told: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None

    def settings_of(self, rest: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
        """The YAML keys of a file: what its parameters have shown, and what they do not show."""
        told = {} if self.told is None else self.told(rest, shown)
        return {**shown, **self.settings, **told}

    def recognises(self, state: State) -> bool:
        """Whether the keys look like those of this source."""
        keys = list(self.prepare(state))
        return all(matching(keys, template) for template in self.signature)
