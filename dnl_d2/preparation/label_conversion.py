"""Converting thousands of label maps: in parallel, past single broken files, and only once."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from os.path import dirname
from typing import Any

import numpy as np
from tqdm import tqdm

from dnl_d2.errors import UsageError, one_line
from dnl_d2.files import WriteError
from dnl_d2.preparation.label_files import is_prepared, remove_leftovers, write_label


@dataclass(frozen=True)
class Job:
    """A label map to prepare.

    Attributes:
        name: what messages call it: its file, or whatever it comes from.
        source: what the conversion reads.
        output: the PNG to write.
    """

    name: str
    source: Any
    output: str


def jobs_to(folder: str, files: Iterable[tuple[str, str]], suffix: str = ".png") -> list[Job]:
    """A job for each (name, path) of ``files`` that writes ``folder/<name><suffix>``."""
    return [Job(path, path, f"{folder}/{name}{suffix}") for name, path in files]


@dataclass(frozen=True)
class Conversion:
    """How label maps are read and their values translated.

    Attributes:
        read: returns a (H, W) array of integers for the source of a job.
        table: the new value (0 to 255) of each old value 0, 1, ..., or -1 where there is none.
        expected: the old values in words, for the message about another.
        colors: palette of the written PNG; None for grey.
    """

    read: Callable[[Any], np.ndarray]
    table: np.ndarray
    expected: str
    colors: Sequence[Sequence[int]] | None = None


@dataclass
class Report:
    """What became of a dataset.

    Attributes:
        written: number of label maps written.
        skipped: number of label maps that were there already, whole.
        problems: a line for each that is lacking or broken.
        notes: remarks that are no failure.
    """

    written: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert_labels(
    jobs: Sequence[Job], conversion: Conversion, report: Report, *, workers: int, title: str
) -> None:
    """Converts label maps in threads: their time goes into Pillow, which lets others run.

    A job that fails becomes a problem of the report, and the others go on. Interrupted at any time
    it leaves whole files only, and goes on from there when it is called again.

    Args:
        jobs: what to convert.
        conversion: how.
        report: counts and problems are added to it.
        workers: number of threads.
        title: label of the progress bar.

    Raises:
        WriteError: an output cannot be written.
    """
    allowed = np.zeros(256, bool)
    allowed[conversion.table[conversion.table >= 0]] = True
    remove_leftovers({dirname(job.output) for job in jobs})

    def convert(job: Job) -> bool:
        if is_prepared(job.output, allowed):
            return False
        label = translate(conversion.read(job.source), conversion, job.name)
        write_label(job.output, label, conversion.colors)
        return True

    with ThreadPoolExecutor(workers) as pool:
        try:
            futures = [pool.submit(convert, job) for job in jobs]
            for future in tqdm(as_completed(futures), total=len(jobs), desc=title, unit="label"):
                try:
                    written = future.result()
                except WriteError:
                    raise
                except UsageError as error:
                    report.problems.append(one_line(error))
                else:
                    report.written += written
                    report.skipped += not written
        except BaseException:  # Ctrl-C too: no point in converting the rest first
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def translate(label: np.ndarray, conversion: Conversion, name: str) -> np.ndarray:
    """Looks every value up in the table of a conversion.

    Args:
        label: (H, W) integers; left untouched.
        conversion: its table and what it expects.
        name: the label's, for the message.

    Returns:
        (H, W) uint8.

    Raises:
        UsageError: a value has no place in the table.
    """
    table = conversion.table
    known = (label >= 0) & (label < len(table))
    if known.all():
        translated = table[label]
        known = translated >= 0
    if not known.all():
        raise UsageError(
            f"label {name} holds the value {label[~known].min()}, expected {conversion.expected}: "
            "it is of another encoding or dataset, put the original file in its place"
        )
    return translated.astype(np.uint8)
