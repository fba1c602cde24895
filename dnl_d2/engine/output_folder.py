"""The folder that a run writes to, in which another run may have left its results."""

import os
import shutil
from pathlib import Path

from dnl_d2.checkpoint.run_checkpoints import newest_first
from dnl_d2.errors import UsageError
from dnl_d2.reporting.curves import CURVES, METRICS
from dnl_d2.reporting.wandb_writer import FOLDER as WANDB_FOLDER

_WEIGHTS = "model_*.pth"
_FIGURES = ("last_checkpoint", METRICS, CURVES, "events.out.tfevents.*", "nonfinite-*.pth")
_FOLDERS = ("inference", "inference_TTA", WANDB_FOLDER)


def require_room(folder: str, *, key: str, weights: str, resume: bool, overwrite: bool) -> None:
    """Sees to it that a run loses no weights of an earlier one.

    Args:
        folder: where the run will write.
        key: the config key of the folder, for the message.
        weights: what the run starts from.
        resume: whether it goes on where another ended.
        overwrite: whether :func:`clear` may delete what another has left.

    Raises:
        UsageError: there are weights, and neither flag is on; or there is nothing that says from
            which of them to go on; or the run would start from one of the files that it deletes.
    """
    found = _checkpoints(folder)
    names = weights_in(folder)
    if resume:
        last = os.path.join(folder, "last_checkpoint")
        if names and not os.path.isfile(last) and not any(newest_first(folder)):
            raise UsageError(
                f"--resume: {key} {folder} holds weights ({names}), but no checkpoint of a run: "
                f"write into {last} which of them to go on from, or start anew with --overwrite"
            )
        return
    if not overwrite and names:
        raise UsageError(
            f"{key} {folder} holds the weights of a run ({names}): --resume goes on with it, "
            "--overwrite deletes them and starts anew; or name another folder"
        )
    if any(os.path.exists(weights) and os.path.samefile(path, weights) for path in found):
        raise UsageError(
            f"--overwrite would delete {weights}, which the run starts from: move the file to "
            f"another folder, or set {key} to one"
        )


def weights_in(folder: str) -> str:
    """The names of up to three checkpoints in a folder; empty if there is none."""
    return ", ".join(path.name for path in _checkpoints(folder)[-3:])


def _checkpoints(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).glob(_WEIGHTS) if path.is_file())


def clear(folder: str) -> None:
    """Deletes checkpoints, figures and evaluations of an earlier run; log and run.json go on.

    Raises:
        UsageError: a file or folder cannot be deleted.
    """
    figures = [path for pattern in _FIGURES for path in sorted(Path(folder).glob(pattern))]
    # What makes a run go on comes first: half of them deleted are no run.
    folders = [Path(folder, name) for name in _FOLDERS]
    for path in (*figures, *_checkpoints(folder), *folders):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:  # of a link to another disk's folder the link alone
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"--overwrite: {path} cannot be deleted ({error.strerror})") from error
