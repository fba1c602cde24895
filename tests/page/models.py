"""A stand-in for a Predictor: says what it was asked, and waits where a test wants it to."""

import threading
from types import SimpleNamespace

import numpy as np

from dnl_d2.errors import UsageError
from dnl_d2.prediction import Segmentation

BLOCKS = {"res4": ("unary",), "head": ("pairwise", "unary")}


class Model:
    """Class 0 everywhere, or 1 as a model sees it that does not predict pictures whole.

    An attention picture is of one colour, see :func:`drawn`. ``may_go_on`` is an event that a
    prediction waits for; ``runs`` counts.
    """

    def __init__(self, blocks=BLOCKS, is_whole=True):
        self.blocks = blocks
        self.is_whole = is_whole
        self.runs = {"predict": 0, "attention": 0}
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def attention_blocks(self):
        if not self.blocks:
            raise UsageError("the model runs no context block")
        return self.blocks

    def __call__(self, image):
        self.runs["predict"] += 1
        return self.segmentation(image, 0)

    def segmentation(self, image, number):
        assert self.may_go_on.wait(timeout=10)
        labels = np.full(image.shape[:2], number)
        return Segmentation(image, labels, ["road", "car"], [(1, 2, 3), (4, 5, 6)])

    def attention(self, image):
        self.runs["attention"] += 1
        return SimpleNamespace(
            image=image,
            prediction=self.segmentation(image, 0 if self.is_whole else 1),
            needs_pixel=lambda block, term: term != "unary",
            overlay=lambda block, term, pixel: drawn(image, block, term, pixel),
        )


def drawn(image, block, term, pixel):
    """What the stand-in draws: one colour, of row, column, and block and term."""
    row, column = pixel or (0, 0)
    assert row < image.shape[0] and column < image.shape[1]
    return np.full_like(image, (row, column, 100 * (block == "head") + 50 * (term == "unary")))
