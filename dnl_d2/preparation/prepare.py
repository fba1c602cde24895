"""What ``tools/prepare_dataset.py`` does."""

import os
from collections.abc import Callable

from dnl_d2.errors import UsageError
from dnl_d2.preparation.ade20k import prepare_ade20k
from dnl_d2.preparation.cityscapes import prepare_cityscapes
from dnl_d2.preparation.label_conversion import Report
from dnl_d2.preparation.pascal_context import prepare_pascal_context
from dnl_d2.preparation.voc import prepare_voc

PREPARATIONS: dict[str, Callable[..., Report]] = {
    "ade20k": prepare_ade20k,
    "cityscapes": prepare_cityscapes,
    "pascal_context": prepare_pascal_context,
    "voc": prepare_voc,
}
_LISTED = 20  # how many problems are printed


def prepare_dataset(name: str, *, root: str | None = None, workers: int | None = None) -> str:
    """Prepares a dataset, and says so on standard output where something is wrong with it.

    Args:
        name: a key of ``PREPARATIONS``.
        root: the folder that holds the dataset's; None for ``$DETECTRON2_DATASETS``, or
            ``datasets`` where that is not set.
        workers: number of threads; None for one per processor, 8 at most.

    Returns:
        What was done.

    Raises:
        UsageError: the dataset is not there, an output cannot be written, or, after all that could
            be done was done, something is lacking or broken.
    """
    if workers is None:
        workers = min(8, os.cpu_count() or 1)
    if workers < 1:
        raise UsageError(f"--workers is {workers}, expected 1 or more")
    root = os.path.expanduser(root or os.environ.get("DETECTRON2_DATASETS", "datasets"))
    if not os.path.isdir(root):
        raise UsageError(f"folder {root} does not exist: give the folder of datasets with --root")
    report = PREPARATIONS[name](root, workers=workers)
    lines = [f"{name}: {report.written} labels written, {report.skipped} were there already"]
    lines += [f"note: {note}" for note in report.notes]
    if report.problems:
        lines += [f"problem: {problem}" for problem in report.problems[:_LISTED]]
        if len(report.problems) > _LISTED:
            lines.append(f"... and {len(report.problems) - _LISTED} more")
        print("\n".join(lines))
        others = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise UsageError(
            f"{name}: {report.problems[0]}{others}; all else is done, correct this and run again"
        )
    return "\n".join(lines)
