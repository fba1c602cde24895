"""What a checkpoint holds of a training loop."""

from typing import Any

from detectron2.engine import TrainerBase


class LoopState:
    """State of a loop, in checkpoints that either of Detectron2's two kinds of loop goes on from.

    DefaultTrainer keeps the optimizer's state one level deeper, under ``_trainer``, than
    SimpleTrainer does. What is written has both forms (of the same tensors, which a file holds
    once); what is read may have either.

    Args:
        loop: runs the steps.
        nested: whether it is a DefaultTrainer.
    """

    def __init__(self, loop: TrainerBase, *, nested: bool):
        self.loop = loop
        self.nested = nested

    def state_dict(self) -> dict[str, Any]:
        state = self.loop.state_dict()
        inner = state.get("_trainer", {key: state[key] for key in state if key != "hooks"})
        return {**inner, **state, "_trainer": inner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes iteration, hooks and optimizer from a checkpoint."""
        if self.nested and "_trainer" not in state:
            state = {**state, "_trainer": state}
        elif not self.nested and "_trainer" in state:
            outer = {key: value for key, value in state.items() if key != "_trainer"}
            state = {**state["_trainer"], **outer}
        self.loop.load_state_dict(state)
