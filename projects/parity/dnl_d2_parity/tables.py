"""Tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def markdown(rows: Sequence[Sequence[str] | Mapping[str, Any]], headers: Sequence[str]) -> str:
    """A Markdown table; ``headers`` may be ``"keys"``, those of rows that are mappings."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
