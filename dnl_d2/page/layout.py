"""The parts of the page, where they stand, and what they call."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import gradio

from dnl_d2.page import callbacks
from dnl_d2.page.answers import Answers
from dnl_d2.page.appearance import TELL_PLACE

HELP = """\
Drop a picture, or paste one. Then click a point in any of the pictures, or hold the button down and
move: the attention maps show where a context block looks at that point, red most, blue least. A map
of the unary term is the same for all points.
"""
_EXPIRES = 3600  # seconds, of the pictures that the page stores
_QUIETLY: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class Attention(NamedTuple):
    """The parts of a model's panel that only a model with context blocks has."""

    picture: gradio.Image
    block: gradio.Dropdown
    term: gradio.Dropdown


class Panel(NamedTuple):
    """What is shown of a model."""

    result: gradio.Image
    legend: gradio.HTML
    attention: Attention | None


class Common(NamedTuple):
    """What the models share."""

    view: gradio.State
    point: gradio.State
    message: gradio.HTML
    picture: gradio.Image


def build_page(answers: Answers) -> gradio.Blocks:
    """The page of one model, or of two side by side; :func:`dnl_d2.page.serve` shows it."""
    page = gradio.Blocks(
        title="dnl_d2",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_EXPIRES // 6, _EXPIRES),
    )
    with page:
        view, point = gradio.State(callbacks.View()), gradio.State(callbacks.NOWHERE)
        message = gradio.HTML(callbacks.NO_PICTURE, elem_id="message", padding=False)
        alone = len(answers.names) == 1
        with gradio.Row():
            with gradio.Column(scale=2, min_width=240):
                picture = _dropped_picture()
            panels = [
                _panel(number, name, answers.blocks[number], alone)
                for number, name in enumerate(answers.names)
            ]
        _connect(answers, Common(view, point, message, picture), panels)
    return page


def _dropped_picture() -> gradio.Image:
    gradio.Markdown("### dnl_d2")
    picture = gradio.Image(
        label="Picture", sources=["upload", "clipboard"], type="filepath", image_mode=None,
        format="jpeg", height=310, buttons=[], elem_id="picture", elem_classes="pictures",
    )  # fmt: skip
    gradio.Markdown(HELP)
    return picture


def _panel(number: int, name: str, blocks: Mapping[str, Sequence[str]], alone: bool) -> Panel:
    """Result and attention: side by side where there is one model, else one below the other."""
    height = 420 if alone else 270
    with gradio.Column(scale=6 if alone else 3, min_width=300):
        gradio.Markdown(f"### {name}")
        with gradio.Row() if alone else gradio.Column():
            with gradio.Column():
                result = _shown("Prediction", f"result-{number}", height)
                legend = gradio.HTML(elem_id=f"legend-{number}", padding=False)
            with gradio.Column():
                attention = _attention(number, blocks, height)
    return Panel(result, legend, attention)


def _attention(number: int, blocks: Mapping[str, Sequence[str]], height: int) -> Attention | None:
    if not blocks:
        line = "This model has no context block whose attention could be shown."
        gradio.HTML(f'<div class="nothing" style="height: {height}px">{line}</div>', padding=False)
        return None
    picture = _shown("Attention", f"attention-{number}", height)
    last = list(blocks)[-1]  # nearest the result
    with gradio.Row():
        block = gradio.Dropdown(
            list(blocks), value=last, label="Block", scale=5, min_width=120,
            elem_id=f"block-{number}", elem_classes="choices",
        )  # fmt: skip
        terms = blocks[last]
        term = gradio.Dropdown(
            list(terms), value=callbacks.first_term(terms), label="Term", scale=2, min_width=120,
            elem_id=f"term-{number}", elem_classes="choices",
        )  # fmt: skip
    return Attention(picture, block, term)


def _shown(label: str, name: str, height: int) -> gradio.Image:
    return gradio.Image(
        label=label, format="jpeg", interactive=False, height=height, buttons=["fullscreen"],
        elem_id=name, elem_classes="pictures",
    )  # fmt: skip


def _connect(answers: Answers, common: Common, panels: list[Panel]) -> None:
    maps = [panel.attention for panel in panels if panel.attention is not None]
    shown = [part for panel in panels for part in (panel.result, panel.legend)]
    drawn = [attention.picture for attention in maps]
    choices = [part for attention in maps for part in (attention.block, attention.term)]
    _connect_picture(answers, common, choices, [*shown, *drawn])
    _connect_points(answers, common, choices, drawn)
    for number, panel in enumerate(panels):
        if panel.attention is not None:
            _connect_choices(answers, common, number, panel.attention)


def _connect_picture(answers: Answers, common: Common, choices: list, shown: list) -> None:
    """A new picture is shown at once, without what was said of the last one, and then predicted."""
    view, point, message, picture = common
    dropped = picture.input(
        lambda upload: [*callbacks.receive(upload), *[None] * len(shown)],
        picture, [picture, view, point, message, *shown],
        preprocess=False, trigger_mode="always_last", **_QUIETLY,
    )  # fmt: skip
    dropped.then(
        partial(callbacks.answer, answers), [view, point, *choices], [message, *shown],
        trigger_mode="always_last", api_visibility="private", show_progress_on=shown[0],
    )  # fmt: skip


def _connect_points(answers: Answers, common: Common, choices: list, drawn: list) -> None:
    place = gradio.JSON(visible=False)
    gradio.Button(visible="hidden", elem_id="point").click(
        partial(callbacks.point, answers), [place, common.view, *choices],
        [common.message, common.point, *drawn], js=TELL_PLACE, trigger_mode="always_last",
        **_QUIETLY,
    )  # fmt: skip


def _connect_choices(answers: Answers, common: Common, number: int, shown: Attention) -> None:
    values = [common.view, common.point, shown.block, shown.term]
    changed = [common.message, shown.picture]
    shown.term.input(
        partial(callbacks.choose_term, answers, number), values, changed,
        trigger_mode="always_last", **_QUIETLY,
    )  # fmt: skip
    shown.block.input(
        partial(callbacks.choose_block, answers, number), values, [*changed, shown.term],
        trigger_mode="always_last", **_QUIETLY,
    )  # fmt: skip
