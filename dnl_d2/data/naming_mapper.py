"""Errors of a mapper that name the image."""

import logging
from collections.abc import Callable

from dnl_d2.data.images import BROKEN, load_picture
from dnl_d2.errors import UsageError

# What Pillow raises on broken files, and Detectron2 and pycocotools on wrong annotations.
_WRONG_INPUT = (*BROKEN, AssertionError, LookupError, TypeError, RuntimeError)


class NamingMapper:
    """Calls a mapper, and names the image that it fails on.

    Args:
        mapper: from a record with ``file_name`` to what a model reads, such as Detectron2's
            ``DatasetMapper``.
    """

    def __init__(self, mapper: Callable[[dict], dict]):
        self.mapper = mapper

    def __call__(self, record: dict) -> dict:
        """Maps a record.

        Raises:
            UsageError: the image cannot be read, or it and its annotations cannot be used.
        """
        try:
            return self.mapper(record)
        except UsageError:
            raise
        except _WRONG_INPUT as error:
            path = record["file_name"]
            logging.getLogger(__name__).debug("while mapping %s", path, exc_info=True)
            load_picture(path)  # says what is wrong if it is the file
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise UsageError(
                f"image {path} and its annotations cannot be used ({reason}): correct them or take "
                "the image off the dataset"
            ) from error
