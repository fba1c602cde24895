"""The page as a person uses it, in Chromium."""

import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from dnl_d2 import Predictor
from dnl_d2.engine import load_config
from dnl_d2.page import Answers, serve
from dnl_d2.synthetic.labelled_scenes import draw_example
from tests.engine.runs import STEM, YAML_OPTIONS, as_yaml, environment  # noqa: F401
from tests.prediction.test_predictor import save_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]
PROMPT = "Click a point in any of the pictures"


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def address(tmp_path):
    """Of a page that compares a DNL with an FCN, with random weights."""
    models, overrides = {}, as_yaml(YAML_OPTIONS)
    for name in ("dnl", "fcn"):
        path = STEM.replace("dnl_", f"{name}_") + ".yaml"
        weights = save_weights(load_config(path, overrides), tmp_path / f"{name}.pth")
        models[name] = Predictor(path, weights=weights, device="cpu", overrides=overrides)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serve(Answers(models), port=port) as address:
        yield address


class Person:
    """What a person does with a page, and sees of it."""

    def __init__(self, page, address):
        self.page = page
        self.hosts = set()
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.goto(address)
        page.wait_for_selector("#picture input[type=file]", state="attached")
        self.says("Drop a picture")

    def drops(self, path):
        if self.page.locator("#picture img").count():
            self.page.click("#picture [aria-label='Remove Image']")
            self.says("Drop a picture")
        self.page.set_input_files("#picture input[type=file]", path)

    def says(self, text):
        self.page.wait_for_selector(f"#message :text({text!r})")

    def sees(self, part):
        """Address of the picture shown in a part, once it is loaded."""
        self.page.wait_for_function(
            "part => { const image = document.querySelector(`${part} img`);"
            " return image && image.complete && image.naturalWidth; }",
            arg=part,
        )
        return self.page.get_attribute(f"{part} img", "src")

    def sees_another(self, part, before):
        self.page.wait_for_function(
            "([part, before]) => { const image = document.querySelector(`${part} img`);"
            " return image && image.src !== before; }",
            arg=[part, before],
        )
        return self.sees(part)

    def sees_point(self, row, column):
        """In the message, up to a pixel: the browser's pixels are not the picture's."""
        self.page.wait_for_function(
            "wanted => { const said = document.querySelector('#message').innerText"
            ".match(/Point: row (\\d+), column (\\d+)/);"
            " return said && wanted.every((at, i) => Math.abs(at - said[i + 1]) <= 1); }",
            arg=[row, column],
        )

    def clicks(self, part, x, y):
        """At shares of a picture's width and height."""
        box = self.page.locator(f"{part} img").bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.fixture
def person(browser, address):
    return Person(browser.new_page(viewport={"width": 1280, "height": 800}), address)


def test_a_visit(person, save, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    person.drops(tmp_path / "text.png")
    person.says("text.png cannot be read (it is no picture of a known format)")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(500 * 2**20)
    person.drops(tmp_path / "huge.png")
    person.page.wait_for_selector(":text('exceed the maximum allowed size of 50')")

    scene, _ = draw_example(0, split="val", size=(120, 160), seed=0, reach=40.0, noise=12.0)
    person.drops(save("scene.png", scene))
    person.says(f"scene.png, 160 x 120 pixels. {PROMPT}")
    assert person.sees("#result-0") != person.sees("#result-1")
    assert person.page.locator("#legend-0 span").count() >= 1
    assert person.page.locator(":text('This model has no context block')").count() == 1
    assert person.page.locator("#attention-1").count() == 0

    plain = person.sees("#attention-0")
    person.clicks("#picture", 0.25, 0.5)
    person.sees_point(60, 40)
    first = person.sees_another("#attention-0", plain)
    person.clicks("#result-1", 0.75, 0.5)
    person.clicks("#result-0", 0.5, 0.25)  # at once: the last one counts
    person.sees_point(30, 80)
    second = person.sees_another("#attention-0", first)
    person.page.click("#term-0 input")
    person.page.click("[role=option]:has-text('unary')")
    person.page.wait_for_selector("#attention-0 :text('where all points look')")
    third = person.sees_another("#attention-0", second)

    person.drops(save("other.png", np.rot90(scene)))
    person.says(f"other.png, 120 x 160 pixels. {PROMPT}")
    assert person.sees_another("#attention-0", third) != plain
    _screenshot(person.page, tmp_path)
    assert person.hosts == {person.page.url.split("/")[2]}


def _screenshot(page, folder):
    """Is of the whole page: nothing must be scrolled for."""
    page.screenshot(path=folder / "page.png")
    assert Image.open(folder / "page.png").size == (1280, 800)
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height <= 800, f"the page is {height} pixels high"
