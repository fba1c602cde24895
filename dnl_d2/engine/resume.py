"""What a checkpoint holds of a training loop."""

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.utils import comm

from dnl_d2.data.stream import TrainingStream
from dnl_d2.engine.nonfinite.guard import NumbersGuard
from dnl_d2.engine.reports import images_in

_log = logging.getLogger(__name__)


class LoopState:
    """State of a loop, in checkpoints that either of Detectron2's two kinds of loop goes on from.

    DefaultTrainer keeps the optimizer's state one level deeper, under ``_trainer``, than
    SimpleTrainer does. What is written has both forms (of the same tensors, which a file holds
    once); what is read may have either.

    Args:
        loop: runs the steps.
        nested: whether it is a DefaultTrainer.
        data: where the loop is in its data.
        guard: counts the last steps that were left out.
    """

    def __init__(self, loop: TrainerBase, *, nested: bool, data: "DataState", guard: NumbersGuard):
        self.loop = loop
        self.nested = nested
        self.data = data
        self.guard = guard

    def state_dict(self) -> dict[str, Any]:
        state = self.loop.state_dict()
        inner = state.get("_trainer", {key: state[key] for key in state if key != "hooks"})
        noted = {"data": self.data.state_dict(), "left_out_in_a_row": self.guard.in_a_row}
        return {**inner, **state, "_trainer": inner, **noted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes iteration, hooks, optimizer and the place in the data from a checkpoint."""
        if self.nested and "_trainer" not in state:
            state = {**state, "_trainer": state}
        elif not self.nested and "_trainer" in state:
            outer = {key: value for key, value in state.items() if key != "_trainer"}
            state = {**state["_trainer"], **outer}
        self.loop.load_state_dict(state)
        self.guard.in_a_row = state.get("left_out_in_a_row", 0)
        self.data.go_on(state["iteration"] + 1, state.get("data", {}))


class DataState:
    """Which batches a loop trains on: seed of the run, and number of the batch of an iteration.

    That is the iteration's own number, unless batches had another size in an earlier part of the
    run: then as many pictures come before it as before. Of a loop whose loader has been replaced by
    another than a TrainingStream nothing is known.

    Args:
        step: takes the batches.
        seeded: whether the config names a seed.
    """

    def __init__(self, step: SimpleTrainer, *, seeded: bool):
        self._step, self._seeded = step, seeded
        self._ahead = 0

    def state_dict(self) -> dict[str, int]:
        stream = self._step.data_loader
        if not isinstance(stream, TrainingStream):
            return {}
        return {"seed": stream.seed, "batches_ahead": self._ahead, **_shape(stream)}

    def go_on(self, iteration: int, state: Mapping[str, int]) -> None:
        """Has the stream begin where a run left it.

        Args:
            iteration: the next one.
            state: a ``state_dict`` of that run; empty in checkpoints of earlier versions.
        """
        stream = self._step.data_loader
        if not isinstance(stream, TrainingStream):
            return
        shape = _shape(stream)
        before = {name: state.get(name, value) for name, value in shape.items()}
        _tell_of_changes(before, shape, known=bool(state))
        seed = state.get("seed", stream.seed)
        if seed != stream.seed:
            if self._seeded:
                _log.warning(f"the run goes on with its own seed {seed}, not with {stream.seed}")
            stream = stream.reseeded(seed)
        images = (iteration + state.get("batches_ahead", 0)) * before["batch_size"]
        stream.start = images // shape["batch_size"]
        self._ahead = stream.start - iteration
        self._step.reset_data_loader(lambda: stream)


def _shape(stream: TrainingStream) -> dict[str, int]:
    """What the order of the pictures depends on, beside the seed."""
    return {
        "batch_size": stream.batch_size,
        "processes": comm.get_world_size(),
        "images": images_in(stream) or 0,
    }


def _tell_of_changes(before: Mapping[str, int], now: Mapping[str, int], *, known: bool) -> None:
    if not known:
        reason = "its checkpoint is of an earlier version, which noted no seed"
    elif before != now:
        changes = [f"{name} {before[name]} -> {now[name]}" for name in now]
        reason = ", ".join(changes).replace("_", " ")
    else:
        return
    _log.warning(
        "the run goes on after as many pictures as it has seen, but is not to the last bit what it "
        f"would have been uninterrupted: {reason}"
    )
