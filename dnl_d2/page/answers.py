"""What models say of the last few pictures: each is read and computed once."""

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dnl_d2.data.images import image_size
from dnl_d2.errors import UsageError
from dnl_d2.prediction import Detections, Predictor, Segmentation
from dnl_d2.prediction.attention import AttentionMaps
from dnl_d2.prediction.sources import read_upright

_logger = logging.getLogger(__name__)
# Pixels of the longer side: what a page shows, and what a model of 150 classes needs 2 GB for.
LONGEST = 2048
MOST_PIXELS = 2**27  # of a picture that is dropped: 400 MB


@dataclass(frozen=True)
class Answer:
    """What a model says of a picture.

    Args:
        result: classes or objects.
        attention: what its context blocks have read; None if it has none.
    """

    result: Segmentation | Detections
    attention: AttentionMaps | None


class Answers:
    """The models of a page, and what they have said of the last few pictures.

    Sessions share them: a picture is known by its file, which is one session's own. Threads may ask
    at the same time, and wait only for what has to be computed.

    Attributes:
        names: of the models.
        blocks: of each model the terms of its context blocks by their names; none where it has no
            block.

    Args:
        models: one or two, by the names that the page shows.
        kept: pictures that are remembered.

    Raises:
        UsageError: there are more models, or none.
    """

    def __init__(self, models: Mapping[str, Predictor], *, kept: int = 4):
        if not 1 <= len(models) <= 2:
            raise UsageError(f"a page shows one model or compares two, not {len(models)}")
        self.names = tuple(models)
        self.blocks = tuple(_blocks(model) for model in models.values())
        self._models = tuple(models.values())
        self._kept = kept
        self._known: dict[str, tuple[Answer, ...]] = {}
        self._computing = threading.Lock()

    def __call__(self, path: str) -> tuple[Answer, ...]:
        """What each model says of a picture file.

        Raises:
            UsageError: the file cannot be read, or a model fails on it, for whatever reason.
        """
        known = self._known.get(path)
        if known is None:
            with self._computing:  # several at once would need several times the memory
                known = self._known.get(path) or self._compute(path)
        return known

    def _compute(self, path: str) -> tuple[Answer, ...]:
        picture = read_picture(path)
        try:
            computed = tuple(
                _answer(predict, picture) if blocks else Answer(predict(picture), None)
                for predict, blocks in zip(self._models, self.blocks, strict=True)
            )
        except UsageError:
            raise
        except Exception as error:  # as a rule, of too little memory: the page goes on
            _logger.exception("while predicting")
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the prediction failed ({type(error).__name__}: {reason}): try a smaller picture"
            ) from error
        while len(self._known) >= self._kept:
            del self._known[next(iter(self._known))]
        self._known[path] = computed
        return computed


def read_picture(path: str) -> np.ndarray:
    """A picture as a person sees it, ``(H, W, 3)`` uint8 RGB, no side over :data:`LONGEST`.

    Raises:
        UsageError: the file cannot be read, or has more than :data:`MOST_PIXELS`.
    """
    if not os.path.exists(path):
        raise UsageError("the picture is no longer kept: drop it once more")
    height, width = image_size(path)
    if height * width > MOST_PIXELS:
        raise UsageError(f"{path}: {width} x {height} pixels are too many: make it smaller")
    array = read_upright(path)
    if max(array.shape[:2]) <= LONGEST:
        return array
    picture = Image.fromarray(array)
    picture.thumbnail((LONGEST, LONGEST))
    return np.asarray(picture)


def _answer(predict: Predictor, picture: np.ndarray) -> Answer:
    """Of a model with context blocks, run once where one run is enough."""
    seen = predict.attention(picture)
    whole = seen.prediction if predict.is_whole else None
    return Answer(predict(picture) if whole is None else whole, seen)


def _blocks(predict: Predictor) -> dict[str, tuple[str, ...]]:
    try:
        return predict.attention_blocks()
    except UsageError:  # it has none
        return {}
