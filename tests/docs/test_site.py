"""The documents as a site: `make docs`, whose pages fetch nothing from other hosts."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT
from tests.processes import with_root


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning fails."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=with_root(ROOT, NO_MKDOCS_2_WARNING="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_pages_are_those_of_the_repository(site):
    pages = {os.path.relpath(path, site) for path in site.rglob("*.html")}
    assert {"index.html", "configs.html", "api.html", "blocks/dnl.html"} <= pages
    for path in (ROOT / "docs").rglob("*.md"):
        assert os.path.relpath(path, ROOT / "docs").replace(".md", ".html") in pages


def test_links_between_pages_work_without_a_server(site):
    links = re.compile(r'(?:href|src)="([^"#]+?)(?:#[^"]*)?"')
    checked = 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # whose addresses are those of a server
            continue
        for link in links.findall(page.read_text("utf-8")):
            if not re.match(r"[a-z]+:|//", link):
                assert (page.parent / link).resolve().is_file(), f"{page}: {link}"
                checked += 1
    assert checked > 500


def test_nothing_is_fetched_from_elsewhere(site):
    """No script, style, picture or font of another host."""
    fetched = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//|"
        r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//"
    )
    for page in site.rglob("*.html"):
        assert not fetched.search(page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text("utf-8")), style


def test_the_api_is_described(site):
    text = (site / "api.html").read_text("utf-8")
    for name in ("dnl_d2.layers.DisentangledNonLocalBlock", "dnl_d2.prediction.Predictor"):
        assert f'id="{name}"' in text
    assert "<p>Args:" not in text  # a section that was not read as one
    assert ":func:" not in text and ".. code-block::" not in text
