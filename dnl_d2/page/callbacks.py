"""What the page does when a person does something: from the values of its parts to new ones."""

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio
import matplotlib.cm  # noqa: F401  which drawing imports, and the first click would wait for
import numpy as np

from dnl_d2.errors import UsageError, one_line
from dnl_d2.page.answers import Answer, Answers, read_picture
from dnl_d2.page.legend import legend
from dnl_d2.prediction.attention import AttentionMaps
from dnl_d2.visualization import mark

NO_PICTURE = "Drop a picture on the left."
# What the weights of a term are.
MEANINGS = {
    "pairwise": "where the point looks",
    "whitened": "where the point looks more than all points together",
    "unary": "where all points look",
}


@dataclass(frozen=True)
class View:
    """The picture that a session looks at.

    Args:
        path: its file; empty before there is one.
        name: as its owner calls it.
    """

    path: str = ""
    name: str = ""


@dataclass(frozen=True)
class Point:
    """What was clicked last, and of which picture: another one may be on its way meanwhile."""

    path: str
    row: int
    column: int

    def of(self, view: View) -> tuple[int, int] | None:
        """(row, column), if it is a point of this picture."""
        return (self.row, self.column) if self.path == view.path else None


NOWHERE = Point("", 0, 0)


def receive(upload: Mapping[str, Any] | None) -> tuple[np.ndarray | None, View, Point, str]:
    """A picture was dropped, or taken away (None): picture, view, point and message."""
    if upload is None:
        return None, View(), NOWHERE, NO_PICTURE
    path = upload["path"]
    view = View(path, upload.get("orig_name") or os.path.basename(path))
    try:
        return read_picture(path), view, NOWHERE, f"{html.escape(view.name)}: one moment ..."
    except UsageError as error:
        return None, View(), NOWHERE, _failed(error, view)


def answer(answers: Answers, view: View, clicked: Point, *choices: str) -> list[Any]:
    """What is shown of a new picture.

    Args:
        answers: the models.
        view, clicked: of the session.
        choices: of each model that has blocks the block and the term that are chosen.

    Returns:
        The message; then result and legend of each model; then the attention picture of each model
        that has blocks.
    """
    nothing = [*[None, ""] * len(answers.names), *[None] * (len(choices) // 2)]
    if not view.path:
        return [gradio.skip(), *nothing]  # the message may tell why there is none
    try:
        found = answers(view.path)
        drawn = _drawn(found, clicked.of(view), choices)
    except UsageError as error:
        return [_failed(error, view), *nothing]
    results = [part for one in found for part in (one.result.draw(), legend(one.result))]
    return [_message(found, view, clicked), *results, *drawn]


def point(answers: Answers, place: Sequence[float] | None, view: View, *choices: str) -> list[Any]:
    """A point was clicked: message, point, and the attention pictures as in :func:`answer`.

    Args:
        answers: the models.
        place: shares of the picture's width and height, from the left and the top.
        view: of the session.
        choices: as in :func:`answer`.
    """
    unchanged = [gradio.skip()] * (len(choices) // 2 + 1)
    if not view.path or place is None:
        return [gradio.skip(), *unchanged]
    try:
        found = answers(view.path)
        size = found[0].result.image.shape[:2]
        row, column = (
            min(max(int(share * side), 0), side - 1)
            for share, side in zip(reversed(place), size, strict=True)
        )
        clicked = Point(view.path, row, column)
        drawn = _drawn(found, (row, column), choices)
        return [_message(found, view, clicked), clicked, *drawn]
    except UsageError as error:
        return [_failed(error, view), *unchanged]


def first_term(terms: Sequence[str]) -> str:
    """What is shown of a block before another term is chosen: what is the point's own."""
    return "whitened" if "whitened" in terms else terms[0]


def choose_block(
    answers: Answers, model: int, view: View, clicked: Point, block: str, term: str
) -> list[Any]:
    """Another block was chosen for a model: message, attention picture and the block's terms."""
    terms = answers.blocks[model][block]
    term = term if term in terms else first_term(terms)
    listed = gradio.update(choices=list(terms), value=term)
    return [*choose_term(answers, model, view, clicked, block, term), listed]


def choose_term(
    answers: Answers, model: int, view: View, clicked: Point, block: str, term: str
) -> list[Any]:
    """Another term was chosen for a model: message and attention picture."""
    if not view.path:
        return [gradio.skip(), gradio.skip()]
    try:
        found = answers(view.path)
        seen = found[model].attention
        assert seen is not None  # a model without blocks has no list of them
        drawn = _attention(seen, clicked.of(view), block, term)
        return [_message(found, view, clicked), drawn]
    except UsageError as error:
        return [_failed(error, view), gradio.skip()]


def _drawn(
    found: Sequence[Answer], pixel: tuple[int, int] | None, choices: Sequence[str]
) -> list[Any]:
    """The attention pictures of the models that have blocks."""
    maps = [one.attention for one in found if one.attention is not None]
    pairs = zip(maps, choices[::2], choices[1::2], strict=True)
    return [_attention(seen, pixel, block, term) for seen, block, term in pairs]


def _attention(seen: AttentionMaps, pixel: tuple[int, int] | None, block: str, term: str) -> Any:
    """The map over the picture; the picture alone where the map is a pixel's and there is none."""
    if pixel is None and seen.needs_pixel(block, term):
        picture = seen.image
    else:
        picture = seen.overlay(block, term, pixel)
    if pixel is not None:
        picture = mark(picture, pixel)
    return gradio.update(value=picture, label=f"Attention: {MEANINGS.get(term, term)}")


def _message(found: Sequence[Answer], view: View, clicked: Point) -> str:
    height, width = found[0].result.image.shape[:2]
    line = f"<b>{html.escape(view.name)}</b>, {width} x {height} pixels. "
    if all(one.attention is None for one in found):
        return line
    if clicked.of(view) is None:
        return line + "Click a point in any of the pictures to see where it looks."
    return line + f"Point: row {clicked.row}, column {clicked.column}."


def _failed(error: UsageError, view: View) -> str:
    """The line of a mistake, with the picture's own name in place of where it was stored."""
    line = one_line(error).replace(view.path, view.name)
    return f'<span class="failed">{html.escape(line)}</span>'
