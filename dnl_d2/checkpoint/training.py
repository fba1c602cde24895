"""Checkpoints of a run in training."""

import os
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from dnl_d2.files import renamed_when_whole, write_text

# The best checkpoint is for evaluation: its run goes on from the last one.
BEST = "model_best"


class TrainingCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that writes files whole or not at all, and never resumes from BEST.

    A run that is killed, or whose disk is full, keeps the checkpoints that it had.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes ``name``.pth with the model, what is to be resumed, and ``kwargs``.

        Raises:
            WriteError: the file cannot be written; an earlier one of that name stays.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        resumed = {key: part.state_dict() for key, part in self.checkpointables.items()}
        content = {"model": self.model.state_dict(), **resumed, **kwargs}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with renamed_when_whole(path) as temporary:
            torch.save(content, temporary)
        if name != BEST:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Names the checkpoint that ``--resume`` goes on from."""
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)
