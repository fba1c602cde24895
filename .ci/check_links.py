#!/usr/bin/env python
"""Relative links of the repository's Markdown files must point to files and headings that exist."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def main() -> None:
    """Prints broken links and ends with status 1 if there are any."""
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]
    broken = [line for file in files for line in broken_links(file)]
    sys.exit("\n".join(broken) if broken else None)


def broken_links(file: Path) -> list[str]:
    """One line for each link of ``file`` that leads nowhere."""
    lines = []
    for link in _LINK.findall(_CODE.sub("", file.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):  # an address
            continue
        path, _, heading = unquote(link).partition("#")
        target = file.parent / path if path else file
        if not target.exists():
            lines.append(f"{file.relative_to(ROOT)}: {link}: there is no {path}")
        elif heading and heading not in anchors(target):
            lines.append(f"{file.relative_to(ROOT)}: {link}: no heading of {target.name}")
    return lines


def anchors(file: Path) -> set[str]:
    """What follows ``#`` in links to the headings of a Markdown file."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = [
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in _HEADING.findall(text)
    ]
    counts: dict[str, int] = {}
    found = set()
    for heading in headings:  # headings of one text are numbered
        number = counts.get(heading, 0)
        counts[heading] = number + 1
        found.add(f"{heading}-{number}" if number else heading)
    return found


if __name__ == "__main__":
    main()
