"""Reading weights into a model so that nothing missing goes unnoticed."""

import os

from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer

from dnl_d2.errors import UsageError


def check_weights_file(path: str, key: str) -> None:
    """Raises :class:`UsageError` if ``path`` names a local file that is not there.

    Args:
        path: file, ``detectron2://`` name or URL; empty for none.
        key: the config key it comes from, for the message.
    """
    if path and "://" not in path and not os.path.isfile(path):
        raise UsageError(f"{key}: there is no weights file {path!r}")


def load_weights(checkpointer: Checkpointer, path: str, *, resume: bool, key: str) -> None:
    """``resume_or_load`` that names the file it cannot read.

    Args:
        checkpointer: of the model, and of the trainer when resuming.
        path: file to start from where there is nothing to resume.
        resume: go on from the last checkpoint of the output folder if there is one.
        key: the config key of ``path``, for the message.

    Raises:
        UsageError: the file is missing, unreadable, or of another model or run.
    """
    source = key
    if resume and checkpointer.has_checkpoint():
        path, source = checkpointer.get_checkpoint_file(), "--resume"
    check_weights_file(path, source)
    try:
        checkpointer.resume_or_load(path, resume=resume)
    except Exception as error:  # pickle, torch, zipfile and the checkpoints' owners raise anything
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{source}: {path!r} cannot be loaded into this model or run "
            f"({type(error).__name__}: {reason})"
        ) from error


def load_for_evaluation(model, path: str, *, output_dir: str, resume: bool, key: str) -> None:
    """Loads weights of which every parameter of ``model`` is there: no figure of random weights.

    Raises:
        UsageError: as :func:`load_weights`, or no file, or parameters missing or of other shape.
    """
    checkpointer = _Recording(model, save_dir=output_dir)
    if not path and not (resume and checkpointer.has_checkpoint()):
        raise UsageError(f"--eval-only needs trained weights: set {key}")
    load_weights(checkpointer, path, resume=resume, key=key)
    wrong = [k for k in checkpointer.unfilled if ".auxiliary." not in k]
    if wrong:
        raise UsageError(
            f"--eval-only: {len(wrong)} parameters are missing from the weights or have another "
            f"shape there, such as {wrong[0]!r}: the config is of another model"
        )


class _Recording(DetectionCheckpointer):
    """Keeps the names of parameters that a file did not fill."""

    unfilled: tuple[str, ...] = ()

    def _log_incompatible_keys(self, incompatible) -> None:
        shapes = [entry[0] for entry in incompatible.incorrect_shapes]
        self.unfilled = (*incompatible.missing_keys, *shapes)
        super()._log_incompatible_keys(incompatible)
