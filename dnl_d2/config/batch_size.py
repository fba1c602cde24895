"""Fitting a schedule to another batch size: the linear scaling rule of arXiv 1706.02677.

With k times the images per iteration, learning rates are multiplied by k and iterations divided by
k, so that a run sees the same number of images, warms up, saves and evaluates after as many of
them. Afterwards the batch size counts as the reference: a scaled config does not scale again.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dnl_d2.errors import UsageError


class SameBatchSize:
    """Goes into checkpoints, so that a scaled run is resumed with the batches it was scaled for.

    With others, the iterations done and those to come would not count the same number of images.

    Args:
        size: images per iteration.
        scaled: whether the config has a reference batch size.
    """

    def __init__(self, size: int, *, scaled: bool):
        self.size = size
        self.scaled = scaled

    def state_dict(self) -> dict[str, int]:
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises :class:`UsageError` if the schedule is scaled and the size is another."""
        if self.scaled and state["size"] != self.size:
            raise UsageError(
                f"the run was trained in batches of {state['size']}, its schedule is now scaled to "
                f"{self.size}: resume with {state['size']} images per batch"
            )


def scale_schedule(
    values: Mapping[str, Any],
    *,
    rates: Collection[str],
    size: tuple[str, int],
    reference: tuple[str, int],
) -> tuple[dict[str, Any], str]:
    """The values of a schedule for another batch size.

    Args:
        values: learning rates and numbers of iterations, or lists of them, by config key.
        rates: which of the keys are learning rates.
        size: config key and value of the batch size.
        reference: of the batch size that the schedule is meant for; 0 to leave it as it is.

    Returns:
        New values by config key, the reference among them, and a line that says what changed; both
        are empty if there is nothing to do.

    Raises:
        UsageError: a size that is not positive, or a value that is missing (None).
    """
    (size_key, images), (reference_key, meant) = size, reference
    if meant < 0 or (meant and not images):
        raise UsageError(f"{reference_key}={meant}, {size_key}={images}: use positive numbers")
    if meant in (0, images):
        return {}, ""
    changes, said = {}, []
    for key, old in values.items():
        if old is None:
            raise UsageError(f"{reference_key}: there is no {key} to scale")
        new = _scaled(old, images / meant, rate=key in rates)
        if new != old:
            changes[key] = new
            said.append(f"{key} {_text(old)} -> {_text(new)}")
    changes[reference_key] = images
    return changes, f"scaled from batches of {meant} to {size_key} {images}: {', '.join(said)}"


def _scaled(value: Any, factor: float, *, rate: bool) -> Any:
    if isinstance(value, Sequence):
        return tuple(_scaled(v, factor, rate=rate) for v in value)
    if rate:
        return value * factor
    return max(round(value / factor), 1) if value > 0 else value


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
