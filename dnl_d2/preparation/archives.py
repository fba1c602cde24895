"""Looking at the folders of a dataset before anything is converted."""

from collections.abc import Collection, Mapping

from dnl_d2.data.listing import count_and_name, without


def lacking(keys: Collection[str], files: Collection[str], what: str) -> list[str]:
    """Returns a line that counts and names the ``keys`` that are not among ``files``, if any.

    Args:
        keys: names that should be there.
        files: names that are there.
        what: the start of the line after the count, such as "images in X have no label in Y".
    """
    missing = without(keys, files)
    what += " (only partly unpacked?)"
    return [count_and_name(missing, len(keys), what)] if missing else []


def compare_counts(counts: Mapping[str, int], official: Mapping[str, int]) -> list[str]:
    """Returns a line for each split whose number of pictures is not the published one."""
    return [
        f"{split} has {counts[split]} pictures, the published dataset {number}: it seems incomplete"
        for split, number in official.items()
        if counts[split] != number
    ]
