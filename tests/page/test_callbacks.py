"""What the page does, without a browser."""

import numpy as np
import pytest

from dnl_d2.page import callbacks
from dnl_d2.page.answers import Answers
from dnl_d2.page.callbacks import NOWHERE, Point, View
from tests.page.models import Model

CHOICES = ("head", "pairwise")


@pytest.fixture
def answers():
    return Answers({"with": Model(), "without": Model(blocks={})})


@pytest.fixture
def path(save):
    return save("4f9a/image.png", np.full((40, 60, 3), 7, np.uint8))


def color(part):
    """Of an update: the picture's, which is one but for a mark."""
    colors, counts = np.unique(part["value"].reshape(-1, 3), axis=0, return_counts=True)
    return tuple(colors[counts.argmax()].tolist())


def test_a_picture_is_received(path):
    picture, view, point, message = callbacks.receive({"path": path, "orig_name": "<b>.png"})
    assert (picture == 7).all() and picture.shape == (40, 60, 3)
    assert view == View(path, "<b>.png") and point == NOWHERE
    assert message == "&lt;b&gt;.png: one moment ..."
    assert callbacks.receive(None) == (None, View(), NOWHERE, callbacks.NO_PICTURE)


def test_a_file_that_is_no_picture_is_named_as_its_owner_calls_it(tmp_path):
    (tmp_path / "x.png").write_text("text")
    upload = {"path": str(tmp_path / "x.png"), "orig_name": "<mine>.png"}
    picture, view, _, message = callbacks.receive(upload)
    assert picture is None and view == View()
    assert "image &lt;mine&gt;.png cannot be read (it is no picture of a known format)" in message
    assert str(tmp_path) not in message and "\n" not in message


def test_what_is_said_of_a_new_picture(answers, path):
    view = View(path, "x.png")
    message, *parts = callbacks.answer(answers, view, NOWHERE, *CHOICES)
    assert message.startswith("<b>x.png</b>, 60 x 40 pixels. Click a point")
    result, legend, other, _, attention = parts
    assert (result == other).all() and result.shape == (40, 60, 3)
    assert "road <small>100 %</small>" in legend and "rgb(1, 2, 3)" in legend
    assert color(attention) == (7, 7, 7)  # the picture alone: there is no point
    *_, attention = callbacks.answer(answers, view, NOWHERE, "head", "unary")
    assert color(attention) == (0, 0, 150)  # which needs none


def test_a_point(answers, path):
    view = View(path, "x.png")
    message, point, attention = callbacks.point(answers, [0.4, 0.8], view, *CHOICES)
    assert point == Point(path, 32, 24) and "row 32, column 24" in message
    assert color(attention) == (32, 24, 100)
    assert (attention["value"][32, 24] == 255).all()  # the mark
    _, point, attention = callbacks.point(answers, [1.0, -0.1], view, *CHOICES)  # just outside
    assert point == Point(path, 0, 59) and color(attention) == (0, 59, 100)


def test_a_new_picture_has_no_point(answers, path, save):
    _, point, _ = callbacks.point(answers, [0.4, 0.8], View(path, "x.png"), *CHOICES)
    other = save("other.png", np.full((30, 30, 3), 9, np.uint8))
    _, view, fresh, _ = callbacks.receive({"path": other})
    assert view == View(other, "other.png")
    for late in (fresh, point):  # also where the click's answer comes after the new picture
        message, *_, attention = callbacks.answer(answers, view, late, *CHOICES)
        assert color(attention) == (9, 9, 9) and "Click a point" in message


def test_nothing_happens_without_a_picture(answers, path):
    for place, view in (([0.4, 0.8], View()), (None, View(path))):
        for part in callbacks.point(answers, place, view, *CHOICES):
            assert "value" not in part
    message, *parts = callbacks.answer(answers, View(), NOWHERE, *CHOICES)
    assert "value" not in message and parts == [None, "", None, "", None]
    for part in callbacks.choose_term(answers, 0, View(), NOWHERE, *CHOICES):
        assert "value" not in part


def test_another_term_and_another_block(answers, path):
    view, point = View(path, "x.png"), Point(path, 8, 9)
    _, attention = callbacks.choose_term(answers, 0, view, point, "head", "unary")
    assert color(attention) == (8, 9, 150)
    assert attention["label"] == "Attention: where all points look"
    _, attention, terms = callbacks.choose_block(answers, 0, view, point, "res4", "pairwise")
    assert color(attention) == (8, 9, 50)  # res4 has nothing else
    assert terms["value"] == "unary" and terms["choices"] == ["unary"]


def test_sessions_do_not_mix(answers, path, save):
    """Two of them, by turns, each with a picture and a point of its own."""
    views = [View(path, "a.png"), View(save("b.png", np.full((50, 50, 3), 1, np.uint8)), "b.png")]
    places = [(0.4, 0.3), (0.8, 0.9)]
    points = [
        callbacks.point(answers, place, view, *CHOICES)[1]
        for place, view in zip(places, views, strict=True)
    ]
    pixels = [(12, 24), (45, 40)]
    for view, point, pixel in zip(views, points, pixels, strict=True):
        message, attention = callbacks.choose_term(answers, 0, view, point, *CHOICES)
        assert view.name in message and color(attention) == (*pixel, 100)


def test_a_picture_that_is_gone_is_said_in_a_line(answers, tmp_path):
    view = View(str(tmp_path / "gone.png"), "x.png")
    line = '<span class="failed">the picture is no longer kept: drop it once more</span>'
    assert callbacks.answer(answers, view, NOWHERE, *CHOICES)[0] == line
    assert callbacks.point(answers, [0, 0], view, *CHOICES)[0] == line
    assert callbacks.choose_term(answers, 0, view, NOWHERE, *CHOICES)[0] == line
