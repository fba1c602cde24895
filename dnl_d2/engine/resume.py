"""What a checkpoint holds of a training loop."""

from typing import Any

from detectron2.engine import TrainerBase


class LoopState:
    """State of a loop, from checkpoints of either of Detectron2's two forms.

    DefaultTrainer keeps the optimizer's state one level deeper, under ``_trainer``, than
    SimpleTrainer does. Either kind of loop goes on from checkpoints of both.

    Args:
        loop: runs the steps.
        nested: whether it is a DefaultTrainer.
    """

    def __init__(self, loop: TrainerBase, *, nested: bool):
        self.loop = loop
        self.nested = nested

    def state_dict(self) -> dict[str, Any]:
        return self.loop.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes iteration, hooks and optimizer from a checkpoint."""
        if self.nested and "_trainer" not in state:
            state = {**state, "_trainer": state}
        elif not self.nested and "_trainer" in state:
            outer = {key: value for key, value in state.items() if key != "_trainer"}
            state = {**state["_trainer"], **outer}
        self.loop.load_state_dict(state)
