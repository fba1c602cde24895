"""The Markdown files of the repository, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "dnl_d2", "configs", "tools", "projects", "requirements", "tests")
_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^ *\2 *$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: what follows the opening fence, such as ``python``.
        text: what is between the fences, without their indentation.
        line: number of the first line of the text in the file.
    """

    language: str
    text: str
    line: int


def documents() -> list[str]:
    """Every Markdown file that the repository ships, relative to its root."""
    files = [*ROOT.glob("*.md"), *(f for name in FOLDERS for f in (ROOT / name).rglob("*.md"))]
    return sorted(str(file.relative_to(ROOT)) for file in files)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    found = []
    for match in _FENCE.finditer(text):
        indent, _, language, inside = match.groups()
        lines = [line.removeprefix(indent) for line in inside.splitlines(keepends=True)]
        number = text.count("\n", 0, match.start(4)) + 1
        found.append(Block(language.strip(), "".join(lines), number))
    return found
