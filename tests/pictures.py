"""Files of pictures as they should not be."""

from pathlib import Path


def truncate(path: str) -> None:
    """Cuts the file in the middle, as an interrupted copy does."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
