"""Reading weights into a model so that nothing missing goes unnoticed."""

import os
import re

from fvcore.common.checkpoint import Checkpointer
from torch import nn

from dnl_d2.checkpoint import PublicCheckpointer
from dnl_d2.checkpoint.checkpointer import OtherModelError
from dnl_d2.checkpoint.detectron2_zoo import resolve_weights
from dnl_d2.checkpoint.training import BEST
from dnl_d2.errors import UsageError

_ANOTHER_FOLDER = (
    "start the new model in another output folder (OUTPUT_DIR, LazyConfig: train.output_dir)"
)


def check_weights_file(path: str, key: str) -> None:
    """Raises :class:`UsageError` if ``path`` is neither a file that is there nor a zoo name.

    Args:
        path: see :func:`dnl_d2.checkpoint.detectron2_zoo.resolve_weights`.
        key: the config key it comes from, for the message.
    """
    resolve_weights(path, key)


def load_weights(
    checkpointer: Checkpointer,
    path: str,
    *,
    resume: bool,
    key: str,
    channel_order: str | None = None,
) -> PublicCheckpointer:
    """``resume_or_load`` that takes public files too and names the file it cannot read.

    Args:
        checkpointer: of the model, and of the trainer when resuming.
        path: file, address or zoo name to start from where there is nothing to resume.
        resume: go on from the last checkpoint of the output folder if there is one.
        key: the config key of ``path``, for the message.
        channel_order: ``RGB`` or ``BGR``, as images reach the model.

    Returns:
        What read the file: it knows which parameters the file did not fill.

    Raises:
        UsageError: the file is missing, unreadable, or of another model or run.
    """
    source = key
    if resume and checkpointer.has_checkpoint():
        path, source = checkpointer.get_checkpoint_file(), "--resume"
    try:
        path = resolve_weights(path, source)
    except UsageError as error:
        raise UsageError(f"{error}{_other_checkpoints(path)}") from error
    reader = PublicCheckpointer(
        checkpointer.model,
        checkpointer.save_dir,
        channel_order=channel_order,
        # What is resumed beside the model, such as momenta, fits no other model.
        whole=source == "--resume" and bool(checkpointer.checkpointables),
        **checkpointer.checkpointables,
    )
    try:
        reader.resume_or_load(path, resume=resume)
    except OtherModelError as error:
        remedy = f"; {_ANOTHER_FOLDER}" if source == "--resume" else ""
        raise UsageError(f"{source}: {path}: {error}{remedy}") from error
    except UsageError as error:
        others = _other_checkpoints(path) if source == "--resume" else ""
        raise UsageError(f"{source}: {error}{others}") from error
    except Exception as error:  # the checkpoints' owners raise anything
        reason = " ".join(str(error).split())[:200]
        if "://" in path:
            remedy = f'download it elsewhere and set {key} to the file, or to "" to do without'
            raise UsageError(
                f"{source}: {path!r} cannot be fetched ({reason}): {remedy}"
            ) from error
        raise UsageError(
            f"{source}: {path!r} cannot be loaded into this model or run "
            f"({type(error).__name__}: {reason})"
        ) from error
    return reader


def _other_checkpoints(path: str) -> str:
    """What else a run may be resumed from, in words."""
    folder, name = os.path.split(path)
    files = os.listdir(folder) if os.path.isdir(folder) else ()
    unfit = (name, f"{BEST}.pth")
    others = sorted(f for f in files if re.fullmatch(r"model_.*\.pth", f) and f not in unfit)
    if not others:
        return ""
    return (
        f"; the folder has {', '.join(others[-3:])} as well: write one of these names into "
        f"{os.path.join(folder, 'last_checkpoint')}"
    )


def load_for_evaluation(
    model: nn.Module,
    path: str,
    *,
    output_dir: str,
    resume: bool,
    key: str,
    channel_order: str | None = None,
) -> None:
    """Loads weights of which every parameter of ``model`` is there: no figure of random weights.

    Raises:
        UsageError: as :func:`load_weights`, or no file, or parameters missing or of other shape.
    """
    checkpointer = Checkpointer(model, save_dir=output_dir)
    if not path and not (resume and checkpointer.has_checkpoint()):
        if resume:
            raise UsageError(
                f"--eval-only --resume: there is no checkpoint in {output_dir} (OUTPUT_DIR, "
                "LazyConfig: train.output_dir)"
            )
        raise UsageError(f"--eval-only needs trained weights: set {key}")
    reader = load_weights(checkpointer, path, resume=resume, key=key, channel_order=channel_order)
    wrong = [k for k in reader.unfilled if ".auxiliary." not in k]
    if wrong:
        raise UsageError(
            f"--eval-only: {len(wrong)} parameters are missing from the weights or have another "
            f"shape there, such as {wrong[0]!r}: the config is of another model; the weights seem "
            f"to be of {reader.described}"
        )
