"""One thing that was found, and how it is said in a line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dnl_d2.errors import printable

_NAMED = 3  # how many files a line names


@dataclass(frozen=True)
class Finding:
    """A problem of one set.

    Args:
        level: "error" breaks training or evaluation, "warning" spoils it.
        code: a name for programs to look for.
        text: what is wrong and what to do.
        files: the files concerned, with remarks.
    """

    level: str
    code: str
    text: str
    files: Sequence[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        """The finding as one line about the set ``name``."""
        line = f"{self.level}: {name}: {self.text}"
        if count := len(self.files):
            line += f" ({count} file{'s'[: count - 1]}: {first_of(self.files, _NAMED)})"
        return printable(line)


def first_of(items: Sequence, most: int) -> str:
    """The items in a line, or as many as are wanted and how many more there are."""
    more = len(items) - most
    return ", ".join(map(str, items[:most])) + (f" and {more} more" if more > 0 else "")


def reordered(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether one of the names has another number in the second list, by whatever capitals."""
    first, second = ([name.casefold() for name in listed] for listed in (names, others))
    return any(name in first and first.index(name) != i for i, name in enumerate(second))
