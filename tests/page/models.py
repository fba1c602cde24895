"""A stand-in for a Predictor: says what it was asked, and waits where a test wants it to."""

import threading
from types import SimpleNamespace

import numpy as np

from dnl_d2.errors import UsageError
from dnl_d2.prediction import Segmentation

BLOCKS = {"res4": ("unary",), "head": ("pairwise", "unary")}


class Model:
    """Class 0 everywhere; an attention picture is of one colour, see :func:`drawn`.

    ``may_go_on`` is an event that a prediction waits for; ``runs`` counts.
    """

    def __init__(self, blocks=BLOCKS):
        self.blocks = blocks
        self.runs = {"predict": 0, "attention": 0}
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def attention_blocks(self):
        if not self.blocks:
            raise UsageError("the model runs no context block")
        return self.blocks

    def __call__(self, image):
        assert self.may_go_on.wait(timeout=10)
        self.runs["predict"] += 1
        return Segmentation(image, np.zeros(image.shape[:2], int), ["road"], [(1, 2, 3)])

    def attention(self, image):
        self.runs["attention"] += 1
        return SimpleNamespace(
            image=image,
            needs_pixel=lambda block, term: term != "unary",
            overlay=lambda block, term, pixel: drawn(image, block, term, pixel),
        )


def drawn(image, block, term, pixel):
    """What the stand-in draws: one colour, of row, column, and block and term."""
    row, column = pixel or (0, 0)
    assert row < image.shape[0] and column < image.shape[1]
    return np.full_like(image, (row, column, 100 * (block == "head") + 50 * (term == "unary")))
